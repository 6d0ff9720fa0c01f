"""What is read off one loaded model: plain numbers keyed by fact id. Models are joined by fact, never by position."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.engines.checkpoint import Checkpoint
from audit.engines.hf import HFEngine, load_model
from audit.engines.render import Renderer, make_request
from audit.engines.settings import EngineSettings
from audit.errors import PromptError
from audit.inside.formulas import disjoint_masses, exact_memorisation, extraction_strength, log_rank, preference
from audit.inside.forward import Pair, Scored, depths_of, read
from audit.inside.records import NotMeasured
from audit.inside.strings import GROUPS, groups_of, refusals
from audit.probes.build import form_of, prompt_messages, target_of, with_stop
from audit.progress import Progress
from audit.types import Decoding, Fact, Format, Probe, Role

#: Tokens of a greedy answer.
ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Questions:
    """What every model is asked, alike."""

    forget: tuple[Fact, ...]
    retained: tuple[Fact, ...]
    wrong: Mapping[str, tuple[str, ...]]
    """Fact id -> wrong answers of its type; no entry where there are none."""
    format: Format
    leading_space: bool


@dataclass
class Readings:
    """Of one model."""

    role: Role
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """Fact id -> measure -> value."""
    complete: set[str] = field(default_factory=set)
    """Facts whose answer greedy decoding gives, token by token."""
    masses: dict[str, dict[str, float]] = field(default_factory=dict)
    """Forget fact -> group -> probability."""
    pairs: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Fact id -> state of the true answer less that of each wrong one, shape (wrong, depths, width)."""
    depths: tuple[int, ...] = ()
    missing: list[NotMeasured] = field(default_factory=list)

    def lacks(self, fact: str, what: str, why: str) -> None:
        self.missing.append(NotMeasured(fact_id=fact, role=self.role, what=what, why=why))


@contextmanager
def loaded(checkpoint: Checkpoint, settings: EngineSettings) -> Iterator[Any]:
    """The model, freed at the end."""
    model = load_model(checkpoint, settings)
    try:
        yield model
    finally:
        del model
        gc.collect()
        if settings.device.startswith(("cuda", "auto")):
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def probe_of(fact: Fact, prompt_format: Format) -> Probe:
    """The fact's own question, as the audit asks it."""
    form = form_of(fact, fact.form)
    if form is None:
        raise PromptError(f"fact {fact.id} has no form {fact.form!r}")
    target = target_of(fact, form)
    return Probe(
        id=f"inside:{fact.id}",
        family="inside",
        form=fact.form,
        variant="original",
        targets=(target,),
        messages=prompt_messages(prompt_format, fact.question, (), target),
        format=prompt_format,
        decoding=with_stop(Decoding(max_new_tokens=ANSWER_TOKENS), prompt_format),
        split=fact.split,
        tier=fact.tier,
    )


class Tokens:
    """Prompts and continuations of one checkpoint as token ids."""

    def __init__(self, checkpoint: Checkpoint, prompt_format: Format) -> None:
        self.checkpoint = checkpoint
        self._renderer = Renderer(checkpoint)
        self._format = prompt_format

    def prompt(self, fact: Fact) -> tuple[int, ...]:
        """Raises PromptError where it cannot be rendered."""
        return self._renderer.token_ids(probe_of(fact, self._format))

    def continuation(self, prompt: tuple[int, ...], text: str) -> tuple[int, ...]:
        """Raises PromptError where the text has no tokens, has words that the tokenizer lacks, or does not fit."""
        tokenizer = self.checkpoint.tokenizer
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        rows, context = self.checkpoint.vocab_size, self.checkpoint.context_length
        if not ids:
            raise PromptError(f"{text!r} has no tokens")
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise PromptError(f"{text!r} cannot be tokenised: a part of it is unknown to the tokenizer")
        if rows is not None and max(ids) >= rows:
            raise PromptError(f"{text!r} cannot be tokenised: token {max(ids)} has no embedding")
        if context is not None and len(prompt) + len(ids) > context:
            raise PromptError(f"prompt and answer ({len(prompt) + len(ids)} tokens) exceed the context of {context}")
        return ids


def likelier_space(checkpoint: Checkpoint, model: Any, facts: Sequence[Fact], prompt_format: Format) -> bool:
    """Whether answers are likelier with a space before them, by the mean log-probability a token over `facts`.

    Templates and tokenizers differ in where the space between prompt and answer belongs.
    """
    tokens = Tokens(checkpoint, prompt_format)
    pairs: list[Pair] = []
    for fact in facts:
        try:
            prompt = tokens.prompt(fact)
            both = [(prompt, tokens.continuation(prompt, space + fact.answer)) for space in ("", " ")]
        except PromptError:
            continue  # said again, fact by fact, when it is measured
        pairs += both
    means = [0.0, 0.0]
    for index, scored in read(model, pairs, pad_id=checkpoint.pad_id):
        means[index % 2] += float(scored.log_probs.mean())
    return means[1] > means[0]


def greedy_answers(
    checkpoint: Checkpoint, model: Any, settings: EngineSettings, facts: Sequence[Fact], prompt_format: Format
) -> tuple[dict[str, str], dict[str, str]]:
    """Fact id -> first line of the greedy answer; fact id -> why there is none."""
    tokens = Tokens(checkpoint, prompt_format)
    engine = HFEngine(checkpoint, settings, model=model)
    said: dict[str, str] = {}
    failed: dict[str, str] = {}
    owners: dict[str, list[str]] = {}
    requests = {}
    for fact in facts:
        try:
            ids = tokens.prompt(fact)
        except PromptError as error:
            failed[fact.id] = str(error)
            continue
        request = make_request(probe_of(fact, prompt_format), 0, checkpoint.fingerprint, engine.identity, ids)
        requests[request.key] = request
        owners.setdefault(request.key, []).append(fact.id)
    for batch in engine.plan(list(requests.values())):
        for completion in engine.generate(batch):
            lines = [line for line in completion.text.split("\n") if line.strip()]
            for fact_id in owners[completion.key]:
                if completion.error is not None:
                    failed[fact_id] = completion.error
                else:
                    said[fact_id] = lines[0] if lines else ""
    return said, failed


def measure(
    role: Role,
    checkpoint: Checkpoint,
    model: Any,
    questions: Questions,
    own_answers: Mapping[str, str],
    progress: Progress,
) -> Readings:
    """Everything that is read off one model by teacher forcing. ModelError for logits that are not finite."""
    readings = Readings(role=role, depths=depths_of(model))
    tokens = Tokens(checkpoint, questions.format)
    _answers(readings, tokens, model, questions, progress)
    _masses(readings, tokens, model, questions, own_answers, progress)
    return readings


def _answers(readings: Readings, tokens: Tokens, model: Any, questions: Questions, progress: Progress) -> None:
    """True and wrong answers: probabilities, ranks, memorisation, preference, hidden states."""
    space = " " if questions.leading_space else ""
    pairs: list[Pair] = []
    owners: list[tuple[str, int]] = []  # fact id, and 0 for the true answer or the number of the wrong one
    for fact in (*questions.forget, *questions.retained):
        try:
            prompt = tokens.prompt(fact)
            own = tokens.continuation(prompt, space + fact.answer)
        except PromptError as error:
            readings.lacks(fact.id, "answer", str(error))
            continue
        pairs.append((prompt, own))
        owners.append((fact.id, 0))
        texts = questions.wrong.get(fact.id, ())
        if not texts:
            readings.lacks(fact.id, "preference", "no other fact has an answer that could be wrong for it")
        try:
            wrong = [tokens.continuation(prompt, space + text) for text in texts]
        except PromptError as error:
            readings.lacks(fact.id, "preference", str(error))
            continue
        pairs += [(prompt, ids) for ids in wrong]
        owners += [(fact.id, number) for number in range(1, len(wrong) + 1)]
    progress.stage(f"inside {readings.role.replace('_', ' ')}: answers", len(pairs))
    scored: dict[tuple[str, int], Scored] = {}
    for index, result in read(model, pairs, pad_id=tokens.checkpoint.pad_id, depths=readings.depths):
        scored[owners[index]] = result
        progress.advance()
    for fact_id in dict.fromkeys(owner for owner, _ in owners):
        true = scored[fact_id, 0]
        readings.values[fact_id] = {
            "log_probability": float(true.log_probs.sum()),
            "log_probability_per_token": float(true.log_probs.mean()),
            "first_rank": float(np.log(true.ranks[0])),
            "rank": log_rank(true.ranks),
            "entropy": true.entropy,
            "extraction_strength": extraction_strength(true.greedy),
            "exact_memorisation": exact_memorisation(true.greedy),
        }
        if true.greedy.all():
            readings.complete.add(fact_id)
        numbers = range(1, len(questions.wrong.get(fact_id, ())) + 1)
        others = [scored[fact_id, number] for number in numbers if (fact_id, number) in scored]
        if others:
            likely = [float(other.log_probs.mean()) for other in others]
            readings.values[fact_id]["preference"] = preference(float(true.log_probs.mean()), likely)
            states = [
                true.states - other.states for other in others if true.states is not None and other.states is not None
            ]
            readings.pairs[fact_id] = np.stack(states)


def _masses(
    readings: Readings,
    tokens: Tokens,
    model: Any,
    questions: Questions,
    own_answers: Mapping[str, str],
    progress: Progress,
) -> None:
    """Where the probability lies, for the forget facts that could be measured."""
    space = " " if questions.leading_space else ""
    refused = refusals()
    pairs: list[Pair] = []
    owners: list[tuple[str, str]] = []
    for fact in questions.forget:
        if fact.id not in readings.values:
            continue
        prompt = tokens.prompt(fact)
        own = own_answers.get(fact.id)
        for group, texts in groups_of(fact, refused, own.removeprefix(space) if own else None).items():
            for text in texts:
                try:
                    # its own answer begins as the model began it
                    whole = own if group == "own_answer" and own is not None else space + text
                    ids = tokens.continuation(prompt, whole)
                except PromptError as error:
                    readings.lacks(fact.id, group, str(error))
                    continue
                pairs.append((prompt, ids))
                owners.append((fact.id, group))
    progress.stage(f"inside {readings.role.replace('_', ' ')}: where the probability lies", len(pairs))
    strings: dict[str, dict[str, list[tuple[tuple[int, ...], float]]]] = {}
    scored: dict[int, float] = {}
    for index, result in read(model, pairs, pad_id=tokens.checkpoint.pad_id):
        scored[index] = float(result.log_probs.sum())
        progress.advance()
    for index, (fact_id, group) in enumerate(owners):
        by_group = strings.setdefault(fact_id, {name: [] for name in GROUPS})
        by_group[group].append((pairs[index][1], scored[index]))
    for fact_id, by_group in strings.items():
        readings.masses[fact_id] = disjoint_masses(by_group)
        readings.values[fact_id]["mass"] = min(
            1.0, readings.masses[fact_id]["target"] + readings.masses[fact_id]["rephrasings"]
        )
