"""How far a judge can be believed: its error rates on answers that people have labelled."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from audit.errors import JudgeError, TaskError
from audit.fingerprint import digest, text_file_digest
from audit.protocols import Judge
from audit.resources import resource
from audit.stats.intervals import clopper_pearson
from audit.types import ANSWER_TYPES, Claim, Record, Verdict


class Item(BaseModel):
    """One labelled response. The label says whether it gives the answer away, by the policy beside the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    answer_type: str = "term"
    response: str
    label: Literal["leak", "no_leak"]
    category: str = "all"
    why: str = ""

    @field_validator("answer_type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if value not in ANSWER_TYPES:
            raise ValueError(f"'{value}' is none of {', '.join(ANSWER_TYPES)}")
        return value


class Rates(Record):
    """Error rates on one set of items. Shares in [0, 1], each with its exact limits (Clopper and Pearson).

    A rate is None where it has no denominator. `sensitivity` and `false_positive_rate` are over the items that the
    judge decided; the `_low` and `_high` of them are confidence limits. `sensitivity_undecided_as_miss` and
    `false_positive_rate_undecided_as_alarm` are the bounds with every undecided verdict counted against the judge.
    """

    n: int
    leaks: int
    hits: int
    """Leaks ruled leak."""
    misses: int
    """Leaks ruled no_leak."""
    false_alarms: int
    """Items without a leak ruled leak."""
    undecided: int
    undecided_leaks: int
    sensitivity: float | None
    sensitivity_low: float
    sensitivity_high: float
    sensitivity_undecided_as_miss: float | None
    false_positive_rate: float | None
    false_positive_rate_low: float
    false_positive_rate_high: float
    false_positive_rate_undecided_as_alarm: float | None
    undecided_rate: float
    undecided_low: float
    undecided_high: float


class Miss(Record):
    """An item that the judge got wrong or left undecided."""

    id: str
    category: str
    label: str
    ruled: str
    reason: str
    rationale: str


class JudgeCard(Record):
    """What `audit judges check` found out about a judge."""

    judge: str
    data: str
    data_digest: str
    confidence: float
    overall: Rates
    categories: dict[str, Rates]
    wrong: tuple[Miss, ...]
    """Every item not ruled as labelled, undecided ones too."""
    seconds: float
    """Wall time of the judge's own calls."""
    reasons: dict[str, int]


def bundled() -> Path:
    """The labelled answers that come with the project."""
    return resource("tasks", "judge_calibration", "items.jsonl")


def load(path: Path) -> tuple[Item, ...]:
    """Read a JSONL file of labelled answers; every problem is reported at once with file, line and field."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise TaskError(
            f"{path} cannot be read: {problem}", hint="give a UTF-8 JSONL file of labelled answers with --data"
        ) from problem
    items: list[Item] = []
    problems: list[str] = []
    lines_by_id: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as problem:
            problems.append(f"{path}:{number}: not JSON: {problem.msg} at column {problem.colno}")
            continue
        if not isinstance(row, dict):
            problems.append(f"{path}:{number}: an object is needed, not {type(row).__name__}")
            continue
        try:
            item = Item.model_validate(row)
        except ValidationError as problem:
            problems += [
                f"{path}:{number}: field '{'.'.join(map(str, error['loc']))}': {error['msg']}"
                for error in problem.errors()
            ]
            continue
        if item.id in lines_by_id:
            problems.append(f"{path}:{number}: field 'id': '{item.id}' stands in line {lines_by_id[item.id]} already")
            continue
        lines_by_id[item.id] = number
        items.append(item)
    if problems:
        raise TaskError(
            f"{len(problems)} problems in {path}:\n" + "\n".join(problems),
            hint="the fields are described in tasks/judge_calibration/README.md",
        )
    if not items:
        raise TaskError(
            f"{path} holds no labelled answers",
            hint="one JSON object a line, with id, question, answer, response, label",
        )
    return tuple(items)


def claim_of(item: Item) -> Claim:
    """The claim that a judge sees for an item."""
    content = (item.question, item.answer, item.aliases, item.answer_type, item.response)
    return Claim(
        key=digest("claim", *content),
        question=item.question,
        answer=item.answer,
        aliases=item.aliases,
        answer_type=item.answer_type,
        text=item.response,
    )


def _rates(pairs: Sequence[tuple[Item, Verdict]], confidence: float) -> Rates:
    counts = Counter((item.label, verdict.label) for item, verdict in pairs)
    hits, misses = counts["leak", "leak"], counts["leak", "no_leak"]
    alarms, cleared = counts["no_leak", "leak"], counts["no_leak", "no_leak"]
    lost, open_ = counts["leak", "undecided"], counts["no_leak", "undecided"]
    n = len(pairs)
    sensitivity = clopper_pearson(hits, hits + misses, confidence)
    alarm = clopper_pearson(alarms, alarms + cleared, confidence)
    undecided = clopper_pearson(lost + open_, n, confidence)
    return Rates(
        n=n,
        leaks=hits + misses + lost,
        hits=hits,
        misses=misses,
        false_alarms=alarms,
        undecided=lost + open_,
        undecided_leaks=lost,
        sensitivity=_share(hits, hits + misses),
        sensitivity_low=sensitivity[0],
        sensitivity_high=sensitivity[1],
        sensitivity_undecided_as_miss=_share(hits, hits + misses + lost),
        false_positive_rate=_share(alarms, alarms + cleared),
        false_positive_rate_low=alarm[0],
        false_positive_rate_high=alarm[1],
        false_positive_rate_undecided_as_alarm=_share(alarms + open_, alarms + cleared + open_),
        undecided_rate=(lost + open_) / n if n else 0.0,
        undecided_low=undecided[0],
        undecided_high=undecided[1],
    )


def _share(k: int, n: int) -> float | None:
    return k / n if n else None


async def _ask(judge: Judge, claims: Sequence[Claim]) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    for start in range(0, len(claims), judge.batch_size):
        batch = claims[start : start + judge.batch_size]
        verdicts.update({verdict.claim_key: verdict for verdict in await judge.judge(batch)})
    return verdicts


def check(
    judge: Judge, items: Sequence[Item], *, data: str = "", data_digest: str = "", confidence: float = 0.95
) -> JudgeCard:
    """Ask the judge for every item and count. A verdict that is missing is the judge's fault and raises JudgeError."""
    claims = {claim.key: claim for claim in map(claim_of, items)}
    start = time.perf_counter()
    verdicts = asyncio.run(_ask(judge, list(claims.values())))
    seconds = time.perf_counter() - start
    missing = [item.id for item in items if claim_of(item).key not in verdicts]
    if missing:
        raise JudgeError(
            f"{judge.identity} gave no verdict on {len(missing)} of {len(items)} items, the first being {missing[0]}"
        )
    pairs = [(item, verdicts[claim_of(item).key]) for item in items]
    names = sorted({item.category for item in items})
    wrong = tuple(
        Miss(
            id=item.id,
            category=item.category,
            label=item.label,
            ruled=v.label,
            reason=str(v.reason),
            rationale=v.rationale,
        )
        for item, v in pairs
        if v.label != item.label
    )
    return JudgeCard(
        judge=judge.identity,
        data=data,
        data_digest=data_digest,
        confidence=confidence,
        overall=_rates(pairs, confidence),
        categories={name: _rates([pair for pair in pairs if pair[0].category == name], confidence) for name in names},
        wrong=wrong,
        seconds=seconds,
        reasons=dict(Counter(str(v.reason) for _, v in pairs)),
    )


def check_file(judge: Judge, path: Path) -> JudgeCard:
    """`check` on a labelled file."""
    return check(judge, load(path), data=str(path), data_digest=text_file_digest(path))
