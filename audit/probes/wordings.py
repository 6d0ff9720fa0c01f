"""The families that ask in the fact's own wordings: original, paraphrase, both with in-context examples, sampled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from audit.probes.build import example_pool, form_of, target_of, wording_probe
from audit.protocols import ProbeContext
from audit.types import Evidence, Outcome, Probe


class WordingFamily:
    """Asks each fact, in each form and format of the context, in its original or its evaluation wordings."""

    evidence: Evidence = "generation"
    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, summary: str, *, paraphrased: bool, in_context: bool) -> None:
        self.name = name
        self.summary = summary
        self._paraphrased = paraphrased
        self._in_context = in_context

    def start(self, ctx: ProbeContext) -> Iterable[Probe]:
        for fact in ctx.facts:
            for form_name in ctx.forms:
                form = form_of(fact, form_name)
                if form is None:
                    continue
                pool = example_pool(ctx, fact, target_of(fact, form)) if self._in_context else ()
                if self._in_context and len(pool) < ctx.n_examples:
                    continue  # `too_few_examples` tells which
                for variant, question in self._questions(form.question, form.wordings, ctx.wordings):
                    for prompt_format in ctx.formats:
                        probe = wording_probe(
                            ctx,
                            fact,
                            form_name,
                            prompt_format,
                            family=self.name,
                            variant=variant,
                            question=question,
                            pool=pool,
                        )
                        if probe is not None:
                            yield probe

    def _questions(self, original: str, wordings: Sequence[str], limit: int | None) -> list[tuple[str, str]]:
        if not self._paraphrased:
            return [("original", original)]
        chosen = wordings if limit is None else wordings[:limit]
        return [(f"w{number:02d}", wording) for number, wording in enumerate(chosen, 1)]

    def follow(self, ctx: ProbeContext, outcomes: Sequence[Outcome]) -> Iterable[Probe]:
        return ()


def too_few_examples(ctx: ProbeContext) -> list[tuple[str, str]]:
    """(fact id, form) of the context that in-context families cannot ask: too few examples may stand in the prompt."""
    return [
        (fact.id, form_name)
        for fact in ctx.facts
        for form_name in ctx.forms
        if (form := form_of(fact, form_name)) is not None
        and len(example_pool(ctx, fact, target_of(fact, form))) < ctx.n_examples
    ]


class SampledFamily:
    """The original wording, drawn many times at a temperature: what an adversary gets who asks again and again."""

    name = "sampled"
    summary = "the original wording, several draws at temperature 1"
    evidence: Evidence = "generation"
    needs = frozenset({"sampling"})

    def start(self, ctx: ProbeContext) -> Iterable[Probe]:
        options = ctx.options.get(self.name, {})
        decoding = msgspec.structs.replace(
            ctx.decoding,
            temperature=float(options.get("temperature", 1.0)),
            n=int(options.get("n", 16)),
            seed=ctx.seed,
        )
        for fact in ctx.facts:
            probe = wording_probe(
                ctx,
                fact,
                fact.form,
                ctx.formats[0],
                family=self.name,
                variant="original",
                question=fact.question,
                decoding=decoding,
            )
            if probe is not None:
                yield probe

    def follow(self, ctx: ProbeContext, outcomes: Sequence[Outcome]) -> Iterable[Probe]:
        return ()


def original() -> WordingFamily:
    return WordingFamily("original", "the original wording", paraphrased=False, in_context=False)


def paraphrase() -> WordingFamily:
    return WordingFamily("paraphrase", "the evaluation wordings", paraphrased=True, in_context=False)


def original_icr() -> WordingFamily:
    return WordingFamily(
        "original_icr", "the original wording after retained examples", paraphrased=False, in_context=True
    )


def paraphrase_icr() -> WordingFamily:
    return WordingFamily(
        "paraphrase_icr", "the evaluation wordings after retained examples", paraphrased=True, in_context=True
    )
