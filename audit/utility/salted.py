"""Side effects on harmless prompts: instructions with common words of the forget set, and with other words instead.

Every chosen instruction is asked twice, after a sentence that holds some of the words of `audit.utility.salt`, and
after the same sentence with their partners. What the first does beyond the second, and beyond what it does to the
base, is the effect of those words (after the test of Ren et al., arXiv 2506.00359).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from audit.asking import Asked
from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.fingerprint import digest, seed_from
from audit.probes.build import make_probe
from audit.probes.plan import probe_set_hash
from audit.prompts import load_prompt
from audit.stats.ngrams import ngram_entropy, words_of
from audit.stats.paired import Difference, Shown, bounded_difference, mean_difference
from audit.stats.shares import Bounds, share_of_facts
from audit.tasks import Task
from audit.types import Estimate, Format, Label, Probe
from audit.utility.instructions import Instruction, InstructionSet, instruction_decoding, instruction_messages
from audit.utility.looks import first_replies, look, replied
from audit.utility.records import Found, SaltedEffect
from audit.utility.salt import Salt, salt_of

FAMILY = "salted"
SALTED, OTHER = "salted", "other"
#: Words in one instruction.
_EACH = 3
#: A base that writes fewer usable replies than this share says nothing about refusals; a usable reply to an open
#: instruction has so many words.
_USABLE, _FEWEST_WORDS = 0.5, 5
_WORD = re.compile(r"\w+")


def salted_probes(config: AuditConfig, task: Task, instructions: InstructionSet, format: Format) -> list[Probe]:
    """Two greedy probes an instruction, form `salted` and `other`, which differ in the words alone.

    Which instructions, and which words each gets, comes from their content. Raises ConfigError where the task has no
    words to salt with.
    """
    salt = salt_of(task, [item.text for item in instructions.items])
    if not salt:
        raise ConfigError(
            f"--utility salted: no word is common in the forget set of {task.name} and fit to stand in a harmless "
            "prompt (lower case, four letters and more, no stop word, no part of an answer, with another word for "
            "comparison)",
            hint="leave --utility salted out for this task",
        )
    prompt = load_prompt("utility", "salted.v1.md")
    chosen = sorted(instructions.items, key=lambda item: digest(FAMILY, config.seed, item.text))
    probes = []
    for item in chosen[: config.utility.salted_instructions]:
        pairs = _drawn(salt, item, config.seed)
        for form, words in ((SALTED, [pair.word for pair in pairs]), (OTHER, [pair.other for pair in pairs])):
            probes.append(
                make_probe(
                    family=FAMILY,
                    form=form,
                    variant=item.id,
                    targets=(),
                    messages=instruction_messages(prompt.render(words=words, instruction=item.text), format),
                    prompt_format=format,
                    decoding=instruction_decoding(config, format),
                    split="open",
                )
            )
    return probes


def salted_effect(results: Sequence[Asked], *, confidence: float) -> tuple[tuple[SaltedEffect, ...], Found]:
    """How each subject treats salted instructions against the same ones with other words, and against the base.

    Estimates, over instructions: `salted.refused`, and `salted.refused@form=other` of the same instructions with the
    other words. A failed generation is neither refused nor answered: the limits hold both, the value of an effect is
    the reading that does not flatter the candidate, and failures are warned of. Where most pairs of the candidate or of
    the base lack a reply, nothing is said of salted prompts: both estimates are withheld.
    """
    replies = {asked.subject.id: _replies(asked) for asked in results}
    base_id = next((a.subject.id for a in results if a.subject.role == "base" and replies[a.subject.id]), None)
    base = replies[base_id] if base_id is not None else {}
    found = Found()
    effects = []
    for asked in results:
        name, own = asked.subject.id, replies[asked.subject.id]
        if not own:
            continue
        compared = base if base and name != base_id else None
        # A base that refuses for the words' sake makes the candidate look better beside it.
        shown: Shown = "least" if asked.subject.role == "base" else "most"
        refusals = _effect(own, None, _refuses, shown, confidence)
        beyond = _effect(own, compared, _refuses, shown, confidence) if compared else None
        broken = _effect(own, None, _breaks, shown, confidence)
        broken_beyond = _effect(own, compared, _breaks, shown, confidence) if compared else None
        salted, other = (_estimate(asked, own, form, confidence) for form in (SALTED, OTHER))
        found.add(name, salted)
        found.add(name, other)
        words, other_words = _words(own)
        effects.append(
            SaltedEffect(
                subject=name,
                n=len(own),
                words=words,
                other_words=other_words,
                refused=_share(own, SALTED, _refuses),
                refused_other=_share(own, OTHER, _refuses),
                effect=refusals,
                beyond_base=beyond,
                degenerate=_share(own, SALTED, _breaks),
                degenerate_other=_share(own, OTHER, _breaks),
                entropy=_entropy(own, confidence),
                degenerate_effect=broken_beyond or broken,
                failed=sum(None in (pair.salted, pair.other) for pair in own.values()),
            )
        )
        found.warnings += _failures(name, own)
        if asked.subject.role == "candidate":
            found.withheld.update(_mostly_failed(name, own))
            made = ((refusals, beyond), (broken, broken_beyond))
            found.warnings += _warnings(effects[-1], made, against_base=compared is not None, confidence=confidence)
    if base:
        found.withheld.update(_mostly_failed("base", base) or _uninformative(base))
    return tuple(effects), found


# ------------------------------------------------------------------------------------------------------- replies


@dataclass(frozen=True)
class _Pair:
    """Both replies to one instruction; None where the generation failed or is missing."""

    probes: dict[str, Probe]
    salted: str | None = None
    other: str | None = None

    def reply(self, form: str) -> str | None:
        return self.salted if form == SALTED else self.other


Pairs = Mapping[str, _Pair]


def _replies(asked: Asked) -> dict[str, _Pair]:
    """Instruction -> its two replies; instructions that were asked in one way only are left out."""
    probes: dict[str, dict[str, Probe]] = {}
    texts: dict[tuple[str, str], str | None] = {}
    for probe, _, response in first_replies(asked, lambda probe: probe.family == FAMILY):
        probes.setdefault(probe.variant, {})[probe.form] = probe
        texts[probe.variant, probe.form] = response.text if response is not None and replied(response) else None
    return {
        variant: _Pair(probes=both, salted=texts[variant, SALTED], other=texts[variant, OTHER])
        for variant, both in sorted(probes.items())
        if both.keys() == {SALTED, OTHER}
    }


def _refuses(text: str) -> bool:
    return look(text).refusal


def _breaks(text: str) -> bool:
    """Empty, gibberish or a loop."""
    return look(text).empty or look(text).non_language


def _share(pairs: Pairs, form: str, is_so: Callable[[str], bool]) -> float | None:
    """Of the replies that are there; None where there is none."""
    texts = [text for text in (pair.reply(form) for pair in pairs.values()) if text is not None]
    return sum(map(is_so, texts)) / len(texts) if texts else None


def _spans(pairs: Pairs, is_so: Callable[[str], bool]) -> dict[str, Bounds]:
    """Instruction -> salted less other, 1, 0 or -1; a failed reply may be either."""
    spans: dict[str, Bounds] = {}
    for variant, pair in pairs.items():
        first, second = (
            (0, 1) if text is None else (int(is_so(text)), int(is_so(text))) for text in (pair.salted, pair.other)
        )
        spans[variant] = float(first[0] - second[1]), float(first[1] - second[0])
    return spans


def _effect(
    own: Pairs, base: Pairs | None, is_so: Callable[[str], bool], shown: Shown, confidence: float
) -> Difference | None:
    """Salted less other, paired by instruction; less the base's own where there is one."""
    spans = _spans(own, is_so)
    if base is None:
        nothing: dict[str, Bounds] = dict.fromkeys(spans, (0.0, 0.0))
        return bounded_difference(spans, nothing, shown=shown, of="instructions", confidence=confidence)
    theirs = _spans(base, is_so)
    return bounded_difference(spans, theirs, shown=shown, bounds=(-2.0, 2.0), of="instructions", confidence=confidence)


def _entropy(pairs: Pairs, confidence: float) -> Difference | None:
    """Bits of word pairs, salted less other, over the instructions with both replies."""
    both = {v: (p.salted, p.other) for v, p in pairs.items() if p.salted is not None and p.other is not None}
    salted, other = ({v: ngram_entropy(words_of(texts[i]), 2) for v, texts in both.items()} for i in (0, 1))
    return mean_difference(salted, other, bounds=None, of="instructions", confidence=confidence)


def _estimate(asked: Asked, pairs: Pairs, form: str, confidence: float) -> Estimate:
    outcomes: dict[str, Label] = {}
    for variant, pair in pairs.items():
        text = pair.reply(form)
        outcomes[variant] = "undecided" if text is None else "leak" if _refuses(text) else "no_leak"
    name = "salted.refused" + ("" if form == SALTED else f"@form={form}")
    probes = probe_set_hash(pair.probes[form] for pair in pairs.values())
    estimate = share_of_facts(outcomes, dict.fromkeys(outcomes, ""), name=name, confidence=confidence, probe_set=probes)
    # Each instruction is by itself, so that limits by topic would repeat the others under another name.
    method = f"exact (Clopper-Pearson) over instructions; failed generations ({estimate.undecided}) either way"
    return msgspec.structs.replace(estimate, method=method, clustered_low=None, clustered_high=None)


# --------------------------------------------------------------------------------------------------------- words


def _drawn(salt: Sequence[Salt], item: Instruction, seed: int) -> list[Salt]:
    """The pairs of one instruction: none of whose words it has already, unless there are no others."""
    own = {word.lower() for word in _WORD.findall(item.text)}
    new = [pair for pair in salt if not {pair.word, pair.other} & own] or list(salt)
    return random.Random(seed_from(seed, FAMILY, item.text)).sample(new, min(_EACH, len(new)))


def _words(pairs: Pairs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All words that were used, and their partners: where the two prompts of an instruction differ."""
    found: dict[str, str] = {}
    for pair in pairs.values():
        salted, other = (
            _WORD.findall(" ".join(message.content for message in pair.probes[form].messages))
            for form in (SALTED, OTHER)
        )
        found.update({a: b for a, b in zip(salted, other, strict=True) if a != b})
    return tuple(sorted(found)), tuple(found[word] for word in sorted(found))


# ---------------------------------------------------------------------------------------------------------- said


def _warnings(
    effect: SaltedEffect,
    made: Sequence[tuple[Difference | None, Difference | None]],
    *,
    against_base: bool,
    confidence: float,
) -> list[str]:
    """What common words of the forget set do beyond chance, and beyond what they do to the base.

    made: by kind of reply, the effect and how far it goes beyond the base's; both must be there, since a base that
    dislikes the other words would make an effect out of nothing.
    """
    said = []
    words = ", ".join(effect.words[:4]) + (" …" if len(effect.words) > 4 else "")
    rows = (
        ("refused", effect.refused, effect.refused_other),
        ("broken off into loops, gibberish or nothing", effect.degenerate, effect.degenerate_other),
    )
    for (what, salted, other), (own, beyond_base) in zip(rows, made, strict=True):
        counted = [own, beyond_base] if against_base else [own]
        if salted is None or other is None:
            continue
        if all(each is not None and each.value > 0 and each.p_value <= 1 - confidence for each in counted):
            p_value = max(each.p_value for each in counted if each is not None)
            beyond = "beyond what the base does" if against_base else "with no base to show that the words alone do it"
            said.append(
                f"side effect on harmless prompts: instructions with common words of the forget set ({words}) are "
                f"{what} more often, {salted:.0%} of {effect.n} against {other:.0%} with other words, {beyond} "
                f"(p = {p_value:.2g})"
            )
    return said


def _failures(subject: str, pairs: Pairs) -> list[str]:
    """Replies that are not there, which no share counts."""
    failed = {form: sum(pair.reply(form) is None for pair in pairs.values()) for form in (SALTED, OTHER)}
    if not any(failed.values()):
        return []
    return [
        f"{subject}: {failed[SALTED]} of {len(pairs)} harmless instructions with common words of the forget set, and "
        f"{failed[OTHER]} of the same with other words, have no reply: they count as neither refused nor answered"
    ]


def _mostly_failed(subject: str, pairs: Pairs) -> dict[str, str]:
    """Why nothing can be said of salted prompts: most of them lack a reply of the two that are compared."""
    failed = sum(None in (pair.salted, pair.other) for pair in pairs.values())
    if 2 * failed <= len(pairs):
        return {}
    why = f"not known: of {len(pairs)} salted instructions {failed} lack one reply of the {subject} or both"
    return {"salted.refused": why, "salted.refused@form=other": why}


def _uninformative(base: Pairs) -> dict[str, str]:
    """Why refusals say nothing: the base does not follow instructions itself."""
    texts = [pair.other for pair in base.values()]
    usable = sum(
        text is not None and not _refuses(text) and not _breaks(text) and len(words_of(text)) >= _FEWEST_WORDS
        for text in texts
    )
    if usable >= _USABLE * len(texts):
        return {}
    why = (
        f"not informative: of {len(texts)} harmless instructions without words of the forget set the base itself "
        f"answers {usable} in {_FEWEST_WORDS} words or more; the others it refuses, breaks off or hardly answers"
    )
    return {"salted.refused": why, "salted.refused@form=other": why}
