"""What a run measures of what forgetting cost: `--utility NAME[:ARGUMENT]` and its settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pydantic

#: Name -> what it measures, for lists and messages.
MEASURES = {
    "open": "replies to open instructions: degeneration, refusals, repetition",
    "win-rate": "the same replies against the base's, compared by judges",
    "context": "whether a fact that stands in the prompt can still be used",
    "salted": "harmless instructions that hold common words of the forget set",
    "lm-eval": "tasks of lm-evaluation-harness, lm-eval:TASK[,TASK]",
    "mmlu": "the same as lm-eval:mmlu",
}


class UtilityConfig(pydantic.BaseModel):
    """What is measured of what forgetting cost, and how. Retained facts are always asked; these come on top."""

    model_config = pydantic.ConfigDict(extra="forbid")

    measures: tuple[str, ...] = ()
    """Names of MEASURES; lm-eval with its tasks."""
    instructions: str | None = None
    """Open instructions: a JSON or JSON Lines file, `alpaca-eval` (from the hub) or `alpaca-eval:PATH`; None: the
    task's own, else the bundled 150."""
    max_instructions: int | None = pydantic.Field(None, ge=1)
    """At most so many of them, the first ones."""
    max_new_tokens: int = pydantic.Field(512, ge=1)
    """Of a reply to an open instruction."""
    reference_outputs: str | None = None
    """Replies to compare with in place of the base's: a file in alpaca_eval's format."""
    judges: tuple[str, ...] = ()
    """Who compares replies; empty: those of the run's judges that can."""
    protocol: Literal["both_orders", "paper"] = "both_orders"
    """paper: two scores of 1 to 10 in one order, on the first 100 instructions."""
    control: int = pydantic.Field(50, ge=0)
    """Instructions on which judges must prefer the reference's own reply to its reply to another instruction. 0: no
    such control, so that nothing shows whether these judges tell good replies from bad ones."""
    context_facts: int | None = pydantic.Field(None, ge=1)
    """At most so many forgotten facts that are stated in the prompt."""
    salted_instructions: int = pydantic.Field(50, ge=1)
    chat_template: Literal["auto", "on", "off"] = "auto"
    """Of lm-eval's prompts: auto is on where every subject has a template."""
    lm_eval_limit: int | None = pydantic.Field(None, ge=1)
    """At most so many documents a task."""
    lm_eval_include: str | None = None
    """A folder of task files of the user's own."""
    lm_eval_shots: int | None = pydantic.Field(None, ge=0)
    """Worked examples before each document; None: as the task says."""
    holes: int = pydantic.Field(0, ge=0)
    """New harmless questions to search for lost knowledge with."""
    generator: str | None = None
    """Who writes them: openai:…, gemini:… or local:…, spelled as judges are."""

    @pydantic.field_validator("measures")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wanted_from(value)
        return value

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> UtilityConfig:
        problems = []
        wanted = wanted_from(self.measures)
        if self.holes and not self.generator:
            problems.append("--holes needs somebody who writes questions: --generator openai:MODEL or local:PATH")
        if self.generator and not self.holes:
            problems.append("--generator writes questions for --holes N: say how many")
        given: dict[str, object] = {"--instructions": self.instructions, "--max-instructions": self.max_instructions}
        if not (wanted.open or wanted.salted):
            problems += _without(given, "--utility open, win-rate or salted")
        given = {"--win-judge": self.judges, "--reference-outputs": self.reference_outputs}
        if not wanted.win_rate:
            problems += _without(given, "--utility win-rate")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def wanted(self) -> Wanted:
        return wanted_from(self.measures)


@dataclass(frozen=True)
class Wanted:
    """The measures, resolved."""

    open: bool
    """Open instructions are asked: for themselves, or for what is compared."""
    win_rate: bool
    context: bool
    salted: bool
    tasks: tuple[str, ...]
    """Of lm-evaluation-harness."""


def _without(given: Mapping[str, object], needed: str) -> list[str]:
    """A sentence for each setting that was given and does nothing without what is needed."""
    return [f"{name} goes with {needed}" for name, value in given.items() if value]


def wanted_from(measures: Sequence[str]) -> Wanted:
    """What the names mean. Raises ValueError with everything wrong with them."""
    names: list[str] = []
    tasks: list[str] = []
    problems = []
    for measure in measures:
        name, colon, argument = measure.partition(":")
        if name == "mmlu":
            tasks.append("mmlu")
        elif name == "lm-eval":
            found = [task.strip() for task in argument.split(",") if task.strip()]
            tasks += found
            if not found:
                problems.append("--utility lm-eval names no task: lm-eval:TASK[,TASK]")
        elif name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]}? " if near else ""
            problems.append(f"--utility {measure}: {meant}known are {', '.join(MEASURES)}")
        if colon and name in MEASURES and name != "lm-eval":
            problems.append(f"--utility {measure}: {name} takes nothing after a colon")
        names.append(name)
    twice = sorted({name for name in names if names.count(name) > 1} - {"lm-eval"})
    twice += sorted({task for task in tasks if tasks.count(task) > 1})
    problems += [f"--utility: {name} is asked for twice" for name in twice]
    if problems:
        raise ValueError("\n".join(problems))
    return Wanted(
        open=bool({"open", "win-rate"} & set(names)),
        win_rate="win-rate" in names,
        context="context" in names,
        salted="salted" in names,
        tasks=tuple(tasks),
    )
