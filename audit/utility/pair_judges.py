"""Who compares replies: the judges that a win rate needs, and what they would cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.asking import Asked
from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.judges import get_judge
from audit.judges.bench import refuse_unpriced
from audit.judges.context import JudgeContext
from audit.judges.llm.model_judge import ModelJudge
from audit.judges.llm.pair_prompt import PairPrompt, make_pair
from audit.judges.pool import can_compare
from audit.protocols import Judge, PairJudge
from audit.remote.budget import Budget
from audit.remote.prices import cost_of, load_prices

#: Judges that ask a model with a prompt file: all of them can compare, given a prompt for it.
_MODELS = ("openai", "gemini", "local")
_HINT = "name one that can: --win-judge openai:MODEL, gemini:MODEL or local:PATH"


def open_pair_judges(config: AuditConfig, budget: Budget) -> list[PairJudge]:
    """The judges that `config.utility.judges` names; where it names none, those of the run's judges that can compare.

    A model judge of the run that has a prompt for claims is asked with the pair prompt; one that is named for pairs
    must not have any other. Raises ConfigError or JudgeError where a named one cannot compare, or none can, where the
    published protocol is asked of a prompt without scores, or where a limit on costs could not be kept.
    """
    judges = _that_compare(config, budget)
    if not judges:
        named = ", ".join(config.judges)
        what = "the preset full" if config.preset == "full" else "--utility win-rate"
        raise ConfigError(
            f"{what} needs a judge that can say which of two replies is better; {named} cannot", hint=_HINT
        )
    refuse_unpriced(config, judges)
    return judges


def some_compares(config: AuditConfig) -> bool:
    """Whether `open_pair_judges` would find any. Raises as it does where a named judge cannot compare."""
    return bool(_that_compare(config, Budget(None)))


def _that_compare(config: AuditConfig, budget: Budget) -> list[PairJudge]:
    given = config.utility.judges
    context = JudgeContext(
        prices=load_prices(Path(config.prices) if config.prices else None),
        budget=budget,
        batch=config.judge_batch,
        pairs=config.utility.protocol,
    )
    judges: list[PairJudge] = []
    for spec in given or [_for_pairs(spec) for spec in config.judges if spec != "recorded"]:
        judge = get_judge(spec, context)
        if can_compare(judge):
            _refuse_unscored(config, spec, judge)
            judges.append(judge)
        elif given:
            raise ConfigError(f"the judge '{spec}' cannot say which of two replies is better", hint=_HINT)
    return judges


def pair_calls(config: AuditConfig, n_instructions: int, n_subjects: int) -> dict[str, Any]:
    """For a dry run: comparisons of `n_subjects` subjects on `n_instructions` instructions, those of the control
    included, and what each judge takes for them. Equal replies and what the store knows are counted as if new."""
    orders = 1 if config.utility.protocol == "paper" else 2
    calls = orders * n_instructions * n_subjects + 2 * min(config.utility.control, n_instructions)
    judges = open_pair_judges(config, Budget(config.max_cost))
    return {
        "comparisons of replies at most": calls,
        **{f"compared by {judge.identity}": _in_words(config, judge, calls) for judge in judges},
    }


def partial_judges(judges: Sequence[str], results: Sequence[Asked]) -> list[str]:
    """Warnings of judges (identities) that are one of the models whose replies they compare, by their weights."""
    said = []
    for asked in results:
        weights, adapter = asked.rendering.get("weights"), asked.rendering.get("adapter")
        for judge in judges:
            same = asked.subject.fingerprint in judge or (bool(weights) and not adapter and str(weights) in judge)
            if judge.startswith("local:") and same:
                name = judge.split()[0]
                said.append(f"win rate: the judge {name} is {asked.subject.id} itself: models like their own replies")
    return said


def _for_pairs(spec: str) -> str:
    """A judge of the run as it compares: the same model, without its prompt for claims."""
    name, _, args = spec.partition(":")
    if name.strip() not in _MODELS:
        return spec
    before, _, query = args.partition("?")
    kept = [part for part in query.split("&") if part and part.partition("=")[0].strip() != "prompt"]
    return f"{name}:{before}" + (f"?{'&'.join(kept)}" if kept else "")


def _refuse_unscored(config: AuditConfig, spec: str, judge: Judge) -> None:
    prompt = getattr(judge, "prompt", None)
    if config.utility.protocol == "paper" and isinstance(prompt, PairPrompt) and not prompt.scores:
        raise ConfigError(
            f"the published protocol has two scores, and the prompt {prompt.name} of '{spec}' asks for a label",
            hint="leave ?prompt=… out, or name a prompt of kind pairs that asks for scores",
        )


def _in_words(config: AuditConfig, judge: Judge, calls: int) -> str:
    """Calls, tokens and dollars, reckoned from replies as long as they may become: at three bytes a token."""
    words = f"at most {calls:,} pairs"
    if not isinstance(judge, ModelJudge) or not calls:
        return words
    reply = "x" * (3 * config.utility.max_new_tokens)
    prompt, said = (calls * n for n in judge.expected_tokens([make_pair("word " * 40, reply, reply)]))
    words += f", at most about {prompt:,} tokens of prompts and {said:,} of replies"
    if judge.price is None:
        return words + "; price unknown"
    return words + f"; about ${cost_of(judge.price, prompt, said, batch=config.judge_batch):,.2f} at most"
