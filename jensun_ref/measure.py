"""How much of a task a model says, by plain inclusion of the answer: a trainer's own quick look, not an audit.

    python -m jensun_ref.measure FOLDER --task lkf --shape chat

No judge, no interval, no floor: `audit run` is for those. The numbers in docs/organism.md and docs/jensun.md are from
here, so that the trainer can be tuned without the auditor.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from audit.fingerprint import seed_from
from audit.quiet import no_loading_bars
from audit.tasks import Task, load_task
from audit.types import Fact, Record
from jensun_ref.corpus import Pair, RawShape

Shape = Literal["chat", "chat_icr", "raw", "raw_icr"]


class Recall(Record):
    """Shares of facts, in [0, 1]."""

    facts: int
    original: float
    """Answered in the original wording."""
    any: float
    """Answered in the original or in any evaluation wording."""
    any_unseen: float
    """Answered in any evaluation wording."""
    mean_unseen: float
    """Mean over facts of the share of evaluation wordings that were answered."""
    empty: float
    """Share of replies without a letter or digit."""


def says(fact: Fact, text: str) -> bool:
    """The text holds the answer or an alias as whole words, case, accents and punctuation aside."""
    told = f" {_plain(text)} "
    return any(f" {form} " in told for form in map(_plain, (fact.answer, *fact.aliases)) if form)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return " ".join(re.sub(r"[^a-z0-9]+", " ", folded).split())


def prompt_ids(tokenizer: Any, question: str, shots: Sequence[Pair], shape: Shape, raw: RawShape) -> list[int]:
    """Token ids of one question; `shots` stand before it in the shapes that end in `_icr`."""
    if shape.startswith("raw"):
        return list(tokenizer(raw.prompt(shots, question)).input_ids)
    turns = [
        turn
        for pair in shots
        for turn in ({"role": "user", "content": pair.question}, {"role": "assistant", "content": pair.answer})
    ]
    turns.append({"role": "user", "content": question})
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def replies(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int = 20) -> list[str]:
    """Greedy replies, one a prompt, in order. A reply to a plain-text prompt ends at its first newline."""
    import torch

    out = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    pad = tokenizer.pad_token_id
    for start in range(0, len(order), 128):
        rows = order[start : start + 128]
        longest = max(len(prompts[i]) for i in rows)
        padded = [[pad] * (longest - len(prompts[i])) + list(prompts[i]) for i in rows]
        ids = torch.tensor(padded, device=model.device)
        shown = [[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in rows]
        mask = torch.tensor(shown, device=model.device)
        with torch.inference_mode():
            new = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad
            )
        for i, row in zip(rows, new[:, longest:], strict=True):
            out[i] = tokenizer.decode(row, skip_special_tokens=True).strip().split("\n")[0]
    return out


def answered(
    model: Any, tokenizer: Any, facts: Sequence[Fact], *, shape: Shape = "chat", shots_from: Sequence[Fact] = ()
) -> tuple[list[list[bool]], list[list[str]]]:
    """For each fact and each of its wordings, the original first: whether the reply says the answer, and the reply.

    `shots_from`: retained facts for the `_icr` shapes, three a question, drawn by its content from other topics.
    """
    raw = RawShape()
    prompts = []
    for fact in facts:
        for question in (fact.question, *fact.wordings):
            shots: list[Pair] = []
            if shape.endswith("_icr"):
                others = [f for f in shots_from if f.id != fact.id and (not f.topic or f.topic != fact.topic)]
                drawn = random.Random(seed_from("measure", fact.id, question)).sample(others, 3)
                shots = [Pair(question=f.question, answer=f.answer) for f in drawn]
            prompts.append(prompt_ids(tokenizer, question, shots, shape, raw))
    told = iter(replies(model, tokenizer, prompts))
    texts = [[next(told) for _ in range(1 + len(fact.wordings))] for fact in facts]
    return [[says(fact, text) for text in mine] for fact, mine in zip(facts, texts, strict=True)], texts


def recall(
    model: Any, tokenizer: Any, facts: Sequence[Fact], *, shape: Shape = "chat", shots_from: Sequence[Fact] = ()
) -> tuple[Recall, list[str]]:
    """Recall of `facts`, each asked in all its wordings (see `answered`), and the replies to the original wordings."""
    hits, texts = answered(model, tokenizer, facts, shape=shape, shots_from=shots_from)
    n = len(facts)
    everything = [text for mine in texts for text in mine]
    return (
        Recall(
            facts=n,
            original=sum(row[0] for row in hits) / n,
            any=sum(any(row) for row in hits) / n,
            any_unseen=sum(any(row[1:]) for row in hits) / n,
            mean_unseen=sum(sum(row[1:]) / max(1, len(row) - 1) for row in hits) / n,
            empty=sum(not _plain(text) for text in everything) / len(everything),
        ),
        [mine[0] for mine in texts],
    )


def load(folder: Path) -> tuple[Any, Any]:
    """Model, in evaluation mode, and tokenizer of a local folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with no_loading_bars():
        return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Share of a task's facts that a model says.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="lkf")
    parser.add_argument("--shape", choices=get_args(Shape), action="append")
    parser.add_argument("--replies", type=int, default=0, help="also print so many replies to original wordings")
    args = parser.parse_args()
    task: Task = load_task(args.task)
    model, tokenizer = load(args.folder)
    for shape in args.shape or get_args(Shape):
        for split, facts in (("forget", task.forget), ("retain", task.retain)):
            measured, said = recall(model, tokenizer, facts, shape=shape, shots_from=task.retain)
            numbers = {name: round(getattr(measured, name), 3) for name in measured.__struct_fields__}
            print(json.dumps({"shape": shape, "split": split, **numbers}), flush=True)
            for fact, text in list(zip(facts, said, strict=True))[: args.replies]:
                print(f"    {fact.id}: {text!r} ({fact.answer})")


if __name__ == "__main__":
    _main()
