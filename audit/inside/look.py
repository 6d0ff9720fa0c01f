"""Looks into candidate, base and never-knew control, one after the other, and joins what was seen by fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audit.engines.checkpoint import Checkpoint
from audit.engines.settings import EngineSettings
from audit.errors import ModelError, TaskError
from audit.fingerprint import seed_from
from audit.inside.joining import join_masses, join_measures
from audit.inside.measure import Questions, Readings, greedy_answers, likelier_space, loaded, measure
from audit.inside.probe import FOLDS, MIN_TRAINED, probe
from audit.inside.records import InsideFact, InsideReport, NotMeasured, ProbeLayer, ProbeView, WeightChange
from audit.inside.strings import folds_of, wrong_answers
from audit.inside.summary import MARGIN, summarise
from audit.inside.weights import weight_change
from audit.progress import Progress
from audit.tasks import Task
from audit.types import Fact, Format, Role

#: Retained facts that are looked at, drawn by the seed where there are more.
MAX_RETAINED = 400
#: Retained facts that decide whether answers begin with a space.
_SPACE_FACTS = 64
#: Wrong answers a fact: of forget facts, and of retained ones.
_WRONG, _WRONG_RETAINED = 4, 2


def look_inside(
    candidate: Checkpoint,
    base: Checkpoint | None,
    never_knew: Checkpoint | None,
    task: Task,
    *,
    device: str,
    dtype: str,
    seed: int,
    confidence: float,
    progress: Progress,
) -> InsideReport:
    """All views of the inside. device: auto, cpu, cuda or cuda:N; dtype: auto, float32, bfloat16 or float16.

    One model is in memory at a time; the reference (the base, or the candidate where there is none) is loaded once
    more, for a few facts. Raises TaskError without forget facts, ModelError where a model gives numbers that are not
    finite, EngineError where a model does not fit the device.
    """
    if not task.forget:
        raise TaskError(f"task {task.name} has no facts to forget")
    settings = EngineSettings(name="hf", device=device, dtype=dtype)
    models: dict[Role, Checkpoint] = {"candidate": candidate}
    if base is not None:
        models["base"] = base
    if never_knew is not None:
        models["never_knew"] = never_knew
    prompt_format: Format = "chat" if all(model.has_template for model in models.values()) else "raw"
    retained = _drawn(task.retain, MAX_RETAINED, seed)
    reference = base if base is not None else candidate
    with loaded(reference, settings) as model:
        space = likelier_space(reference, model, (retained or task.forget)[:_SPACE_FACTS], prompt_format)
    folds = folds_of(retained, FOLDS, seed)
    questions = Questions(
        forget=task.forget,
        retained=retained,
        wrong=wrong_answers(task.forget, _WRONG, seed) | wrong_answers(retained, _WRONG_RETAINED, seed, folds),
        format=prompt_format,
        leading_space=space,
    )
    readings: dict[Role, Readings] = {}
    said: dict[str, str] = {}
    unsaid: dict[str, str] = {}
    for role, checkpoint in models.items():  # the candidate first: what it says is then scored in all
        try:
            with loaded(checkpoint, settings) as model:
                if role == "candidate":
                    said, unsaid = greedy_answers(checkpoint, model, settings, task.forget, prompt_format)
                readings[role] = measure(role, checkpoint, model, questions, said, progress)
        except ModelError as error:
            raise ModelError(f"{checkpoint.source} ({role}): {error}", hint=error.hint) from error
    forget = [fact.id for fact in task.forget]
    probes = tuple(_probed(reading, forget, [fact.id for fact in retained], folds) for reading in readings.values())
    used = _used(readings, forget)
    measures = join_measures(readings, used, [fact.id for fact in retained], confidence)
    weights, notes = _weights(candidate, base)
    summary = summarise(measures, tuple(models), len(used), confidence)
    missing = [NotMeasured(fact_id=fact, role="candidate", what="own_answer", why=why) for fact, why in unsaid.items()]
    return InsideReport(
        label=summary.label,
        headline=summary.headline,
        reasons=summary.reasons,
        found=summary.found,
        clear=summary.clear,
        edge=summary.edge,
        blind=summary.blind,
        margin=MARGIN,
        roles=tuple(models),
        prompt_format=prompt_format,
        leading_space=space,
        confidence=confidence,
        seed=seed,
        forget=len(forget),
        used=len(used),
        retained=len(retained),
        measures=measures,
        masses=join_masses(readings, used, confidence),
        weights=weights,
        probes=probes,
        facts=tuple(_fact(fact, readings, said) for fact in forget),
        not_measured=(*missing, *(item for reading in readings.values() for item in reading.missing)),
        notes=(*notes, *_notes(models, prompt_format)),
    )


def _drawn(facts: Sequence[Fact], most: int, seed: int) -> tuple[Fact, ...]:
    """At most `most` facts, drawn by content."""
    if len(facts) <= most:
        return tuple(facts)
    return tuple(sorted(facts, key=lambda fact: (seed_from("inside", seed, fact.id), fact.id))[:most])


def _used(readings: Mapping[Role, Readings], forget: Sequence[str]) -> list[str]:
    """Forget facts that were measured in every model and that the base, where there is one, completes."""
    measured = [fact for fact in forget if all(fact in reading.values for reading in readings.values())]
    return [fact for fact in measured if "base" not in readings or fact in readings["base"].complete]


def _probed(reading: Readings, forget: Sequence[str], retained: Sequence[str], folds: Mapping[str, int]) -> ProbeView:
    """The probe of one model; what it tells of each forget fact is added to the readings."""
    known = {fact: reading.pairs[fact] for fact in retained if fact in reading.complete and fact in reading.pairs}
    asked = {fact: reading.pairs[fact] for fact in forget if fact in reading.pairs}
    if len(known) < MIN_TRAINED or not asked or len(reading.depths) < 2:
        why = (
            f"the model completes {len(known)} retained facts; a probe needs {MIN_TRAINED}"
            if len(known) < MIN_TRAINED
            else "no forget fact has a wrong answer of its type"
            if not asked
            else "the model has no blocks"
        )
        return ProbeView(role=reading.role, layers=(), chosen=None, ridge=None, trained_on=len(known), why_not=why)
    found = probe(known, folds, asked)
    for fact, value in found.by_fact.items():
        reading.values[fact]["probe"] = value
    return ProbeView(
        role=reading.role,
        layers=tuple(
            ProbeLayer(layer=depth, retained=float(found.retained[place]), forget=float(found.forget[place]))
            for place, depth in enumerate(reading.depths)
        ),
        chosen=reading.depths[found.chosen],
        ridge=float(found.ridges[found.chosen]),
        trained_on=len(known),
    )


def _weights(candidate: Checkpoint, base: Checkpoint | None) -> tuple[WeightChange | None, list[str]]:
    """The change of the weights, or why there is none."""
    if base is None:
        return None, ["change of the weights: not measured, there is no base"]
    try:
        return weight_change(candidate, base), []
    except ModelError as error:
        return None, [f"change of the weights: not measured: {error}"]


def _fact(fact: str, readings: Mapping[Role, Readings], said: Mapping[str, str]) -> InsideFact:
    known = fact in readings["base"].complete if "base" in readings and fact in readings["base"].values else None
    values = {role: reading.values[fact] for role, reading in readings.items() if fact in reading.values}
    return InsideFact(fact_id=fact, known=known, values=values, said=said.get(fact))


def _notes(models: Mapping[Role, Checkpoint], prompt_format: Format) -> list[str]:
    notes = []
    if len({model.tokenizer_fingerprint for model in models.values()}) > 1:
        notes.append("the models' tokenizers differ: numbers a token are not of the same tokens")
    if prompt_format == "chat" and len({model.template_fingerprint for model in models.values()}) > 1:
        notes.append("the models' chat templates differ: each was asked in its own")
    return notes
