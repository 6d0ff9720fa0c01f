"""Turns one wording of one fact into a probe: prompt text, in-context examples, the ban on giving the answer away."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from audit.fingerprint import digest, seed_from
from audit.prompts import load_prompt
from audit.protocols import ProbeContext
from audit.types import Decoding, Fact, Form, Format, Message, Probe, Target

PROMPT_FILES: dict[Format, tuple[str, str]] = {
    "chat": ("probes", "chat.v1.md"),
    "chat_base": ("probes", "chat.v1.md"),
    "raw": ("probes", "raw.v1.md"),
}


def form_of(fact: Fact, name: str) -> Form | None:
    """The fact in one form; None if it has no such form."""
    if name == fact.form:
        return Form(
            question=fact.question,
            answer=fact.answer,
            aliases=fact.aliases,
            answer_type=fact.answer_type,
            wordings=fact.wordings,
        )
    return fact.other_forms.get(name)


def target_of(fact: Fact, form: Form) -> Target:
    return Target(
        fact_id=fact.id,
        question=form.question,
        answer=form.answer,
        aliases=form.aliases,
        answer_type=form.answer_type,
    )


@lru_cache(maxsize=65536)
def plain_words(text: str) -> str:
    """Lower-case words without accents and punctuation, single-spaced, with a space at both ends."""
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    return " " + " ".join(re.findall(r"\w+", bare)) + " "


#: Scripts that put no space between words (kana, Han, Hangul particles, Thai, Lao, Khmer, Burmese).
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@lru_cache(maxsize=8192)
def _plain_answers(target: Target) -> tuple[tuple[str, str], ...]:
    """(answer, what to look for in `plain_words` of a text) of the target's answer and aliases."""
    plain = [(answer, plain_words(answer)) for answer in (target.answer, *target.aliases)]
    return tuple((answer, p.strip() if _UNSPACED.search(p) else p) for answer, p in plain if p.strip())


def gives_away(text: str, target: Target) -> str | None:
    """The answer or alias that stands in `text` as whole words, or None.

    Where words are not set apart by spaces it is enough that the answer stands anywhere.
    """
    words = plain_words(text)
    return next((answer for answer, plain in _plain_answers(target) if plain in words), None)


def example_pool(ctx: ProbeContext, fact: Fact, target: Target) -> tuple[Fact, ...]:
    """Retained facts that may stand in a prompt that asks for `target`, in order of id.

    Never the fact itself, nor one of its topic or linked to its topic, nor one that holds the answer.
    """
    answers = [plain for _, plain in _plain_answers(target)]
    allowed = []
    for example in ctx.examples:
        related = fact.topic and fact.topic in (example.topic, example.extra.get("linked_forget"))
        if example.id != fact.id and not related:
            words = plain_words(f"{example.question} {example.answer}")
            if not any(plain in words for plain in answers):
                allowed.append(example)
    return tuple(sorted(allowed, key=lambda example: example.id))


def draw_examples(ctx: ProbeContext, fact: Fact, pool: Sequence[Fact], *key: str) -> tuple[Fact, ...]:
    """`ctx.n_examples` of `pool` for one prompt, seeded by what is asked. Fewer if there are fewer."""
    chosen = random.Random(seed_from(ctx.seed, "examples", fact.id, *key)).sample(pool, min(ctx.n_examples, len(pool)))
    return tuple(chosen)


def prompt_messages(
    prompt_format: Format, question: str, examples: Sequence[Fact], target: Target
) -> tuple[Message, ...]:
    """The messages of a prompt; for `raw` one user message that holds the whole text.

    The raw prompt's worked examples are the first of its file that do not hold the target's answer.
    """
    prompt = load_prompt(*PROMPT_FILES[prompt_format])
    pairs = [{"question": example.question, "answer": example.answer} for example in examples]
    if prompt_format == "raw":
        worked = [e for e in prompt.meta["examples"] if gives_away(f"{e['question']} {e['answer']}", target) is None]
        text = prompt.render(question=question, examples=[*worked[: prompt.meta["worked"]], *pairs])
        return (Message(role="user", content=text),)
    turns: list[Message] = []
    for pair in pairs:
        turns.append(Message(role="user", content=prompt.render(question=pair["question"])))
        turns.append(Message(role="assistant", content=pair["answer"]))
    return (*turns, Message(role="user", content=prompt.render(question=question)))


def with_stop(decoding: Decoding, prompt_format: Format) -> Decoding:
    """The decoding with the stop strings that the format's prompt file names."""
    stop = tuple(load_prompt(*PROMPT_FILES[prompt_format]).meta.get("stop") or ())
    return Decoding(
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        stop=(*decoding.stop, *stop),
        n=decoding.n,
        seed=decoding.seed,
    )


def make_probe(
    *,
    family: str,
    form: str,
    variant: str,
    targets: Iterable[Target],
    messages: Sequence[Message],
    prompt_format: Format,
    decoding: Decoding,
    split: str = "forget",
    tier: str = "",
    shots: Sequence[str] = (),
    prefill: str = "",
    parent: str | None = None,
    turn: int = 0,
) -> Probe:
    """A probe whose id is the hash of everything that it asks and is judged for."""
    targets = tuple(targets)
    identity = digest(
        "probe", family, form, variant, targets, tuple(messages), prompt_format, decoding, prefill, parent, turn
    )
    return Probe(
        id=identity,
        family=family,
        form=form,
        variant=variant,
        targets=targets,
        messages=tuple(messages),
        format=prompt_format,
        decoding=decoding,
        split=split,  # type: ignore[arg-type]
        tier=tier,
        shots=tuple(shots),
        prefill=prefill,
        parent=parent,
        turn=turn,
    )


def wording_probe(
    ctx: ProbeContext,
    fact: Fact,
    form_name: str,
    prompt_format: Format,
    *,
    family: str,
    variant: str,
    question: str,
    pool: Sequence[Fact] = (),
    decoding: Decoding | None = None,
) -> Probe | None:
    """One wording of one fact as a probe, after examples drawn from `pool`; None if it has no such form."""
    form = form_of(fact, form_name)
    if form is None:
        return None
    target = target_of(fact, form)
    examples = draw_examples(ctx, fact, pool, form_name, variant)
    return make_probe(
        family=family,
        form=form_name,
        variant=variant,
        targets=(target,),
        messages=prompt_messages(prompt_format, question, examples, target),
        prompt_format=prompt_format,
        decoding=with_stop(decoding or ctx.decoding, prompt_format),
        split=fact.split,
        tier=fact.tier,
        shots=[example.id for example in examples],
    )


def asked_with(probe: Probe, decoding: Decoding, *, parent: str | None = None) -> Probe:
    """The same prompt with other decoding, under an id of its own; as a follow-up of `parent` where that is given."""
    return make_probe(
        family=probe.family,
        form=probe.form,
        variant=probe.variant,
        targets=probe.targets,
        messages=probe.messages,
        prompt_format=probe.format,
        decoding=decoding,
        split=probe.split,
        tier=probe.tier,
        shots=probe.shots,
        prefill=probe.prefill,
        parent=parent,
    )
