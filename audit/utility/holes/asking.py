"""Asks the base what it knows of new questions, and the other subjects what they kept of that.

Known is what the base says greedily and again in most of several drawn replies. It need not be true: that two models
differ in it shows the loss as well. Nothing that failed, was cut, refused or is too long is knowledge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from audit.asking import Asked
from audit.errors import ConfigError
from audit.probes.build import gives_away, make_probe, prompt_messages
from audit.probes.plan import Plan
from audit.prompts import load_prompt
from audit.scoring.cells import planned_cells
from audit.subjects import Opened
from audit.types import Decoding, Format, Label, Message, Probe, Record, Response, Target
from audit.utility.holes.screen import Screen, alike
from audit.utility.holes.writing import Question
from audit.utility.looks import look

#: Drawn replies that show whether the base knows, of which so many must give its greedy answer; undecided ones do not
#: count as agreeing. One more is drawn as a control of what chance takes away.
SAMPLES, AGREE = 4, 3
#: Of drawn replies. The others are asked greedily: at 1.0 the control would vary far more than they do.
TEMPERATURE = 0.7
#: Tokens of a reply, words and characters of one that is an answer.
MAX_NEW_TOKENS, MOST_WORDS, MOST_CHARACTERS = 48, 12, 120
FAMILY = "hole"

Ask = Callable[[Opened, Plan], Asked]


class Known(Record):
    """A question that the base answers consistently."""

    question: Question
    target: Target
    """Its greedy reply as the answer."""
    control: Label
    """Of one further drawn reply: leak where it gives the answer again."""


class Heard(Record):
    """What became of one known question for one subject."""

    label: Label
    """leak: it gives the base's answer."""
    said: str
    refused: bool
    """It declines and does not give the answer."""


def prompt_format(wanted: str, opened: Sequence[Opened]) -> Format:
    """chat where every subject has a template and nothing else is wanted, else raw: like with like."""
    chat = wanted != "raw" and all(subject.rendering.get("has_template") for subject in opened)
    return "chat" if chat else "raw"


def refuse_unless_sampling(base: Opened) -> None:
    """ConfigError for an engine that cannot sample: nothing would show what the base knows."""
    if "sampling" not in base.capabilities:
        raise ConfigError(
            "--holes draws several replies to see what the base knows, and its engine cannot sample",
            hint="choose another --engine, or leave --holes out",
        )


def known_questions(
    questions: Sequence[Question], base: Opened, asked_as: Format, ask: Ask, screen: Screen, seed: int
) -> tuple[list[Known], dict[str, int]]:
    """The questions that the base answers consistently, and why the others are none -> how many.

    Raises ConfigError for an engine that cannot sample.
    """
    refuse_unless_sampling(base)
    greedy = {q.id: _probe(q, asked_as, Decoding(max_new_tokens=MAX_NEW_TOKENS, seed=seed), ()) for q in questions}
    replies = _replies(ask(base, _plan(greedy.values())))
    unknown: Counter[str] = Counter()
    targets: dict[str, Target] = {}
    for question in questions:
        probe = greedy[question.id]
        why, answer = _answer(question, probe, replies.get(probe.id), screen)
        earlier = [other for other in questions if other.id in targets and targets[other.id].answer == answer]
        if not why and any(alike(question.text, other.text) for other in earlier):
            why = "asked twice: another question with the same answer"
        if why:
            unknown[why] += 1
        else:
            targets[question.id] = _target(question, answer)
    drawn = Decoding(max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE, n=SAMPLES + 1, seed=seed)
    probes = {q.id: _probe(q, asked_as, drawn, (targets[q.id],)) for q in questions if q.id in targets}
    labels = _labels(ask(base, _plan(probes.values()))) if probes else {}
    known = []
    for question in questions:
        if question.id not in targets:
            continue
        given = [labels.get((probes[question.id].id, sample), "undecided") for sample in range(SAMPLES + 1)]
        agreeing, open_ = given[:SAMPLES].count("leak"), given[:SAMPLES].count("undecided")
        if agreeing >= AGREE:
            known.append(Known(question=question, target=targets[question.id], control=given[SAMPLES]))
        else:
            unknown["undecided" if agreeing + open_ >= AGREE else "another answer when asked again"] += 1
    return known, dict(sorted(unknown.items()))


def known_probes(known: Sequence[Known], asked_as: Format, seed: int) -> dict[str, Probe]:
    """Question id -> the probe that every other subject is asked: greedy, judged for the base's answer."""
    decoding = Decoding(max_new_tokens=MAX_NEW_TOKENS, seed=seed)
    return {each.question.id: _probe(each.question, asked_as, decoding, (each.target,)) for each in known}


def heard(probes: dict[str, Probe], subject: Opened, ask: Ask) -> dict[str, Heard]:
    """Question id -> what became of it for `subject`; undecided for what failed or was not ruled on."""
    asked = ask(subject, _plan(probes.values()))
    labels, replies = _labels(asked), _replies(asked)
    found = {}
    for name, probe in probes.items():
        label, reply = labels.get((probe.id, 0), "undecided"), replies.get(probe.id)
        text = reply.text.strip() if reply is not None and reply.finish != "error" else ""
        found[name] = Heard(label=label, said=text, refused=label == "no_leak" and look(text).refusal)
    return found


def _answer(question: Question, probe: Probe, reply: Response | None, screen: Screen) -> tuple[str, str]:
    """Why the greedy reply is no knowledge (empty where it may be), and the answer in it."""
    if reply is None or reply.finish == "error":
        return "failed", ""
    if reply.finish == "length":
        return "cut", ""
    text = " ".join(reply.text.split())
    seen = look(text)
    if seen.empty or not any(map(str.isalnum, text)):
        return "empty", ""
    if seen.refusal:
        return "refused, or says that it does not know", ""
    if seen.non_language:
        return "degenerate", ""
    if len(text) > MOST_CHARACTERS or len(text.split()) > MOST_WORDS:
        return "too long to be one answer", ""
    answer = text.removesuffix(".").strip()
    prompt = "\n".join(message.content for message in probe.messages)
    if gives_away(prompt, _target(question, answer)) is not None:
        return "stands in the prompt", ""
    if screen.answers_forgotten(question.text, answer, near=bool(question.near)):
        return "a forgotten answer", ""
    return "", answer


def _target(question: Question, answer: str) -> Target:
    number = re.fullmatch(r"[\d.,\s]+", answer) is not None
    return Target(
        fact_id=f"hole:{question.id}",
        question=question.text,
        answer=answer,
        answer_type="number" if number else "term",
    )


def _probe(question: Question, asked_as: Format, decoding: Decoding, targets: tuple[Target, ...]) -> Probe:
    """The same messages whoever is asked and however often."""
    if asked_as == "raw":
        raw = load_prompt("probes", "raw.v1.md")
        nothing = Target(fact_id="", question="", answer="")
        messages = prompt_messages("raw", question.text, (), nothing)
        stop = tuple(raw.meta.get("stop") or ())
    else:
        prompt = load_prompt("utility", "hole_chat.v1.md")
        messages = (Message(role="user", content=prompt.render(question=question.text)),)
        stop = tuple(prompt.meta.get("stop") or ())
    return make_probe(
        family=FAMILY,
        form="direct",
        variant=question.id,
        targets=targets,
        messages=messages,
        prompt_format=asked_as,
        decoding=Decoding(
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            stop=stop,
            n=decoding.n,
            seed=decoding.seed,
        ),
        split="open",
    )


def _plan(probes: object) -> Plan:
    return Plan(probes=tuple(probes), refused={})  # type: ignore[arg-type]


def _replies(asked: Asked) -> dict[str, Response]:
    """Probe id -> its first reply; a cut one that was asked for again counts as it came at last."""
    again = {probe.parent: probe.id for probe in asked.probes if probe.parent is not None}
    first = {response.probe_id: response for response in asked.responses if response.sample == 0}
    return {name: first.get(again.get(name, ""), response) for name, response in first.items()}


def _labels(asked: Asked) -> dict[tuple[str, int], Label]:
    """(probe id, sample) -> how it was ruled."""
    return {(cell.probe.id, cell.sample): cell.label for cell in planned_cells(asked.probes, asked.rulings)}
