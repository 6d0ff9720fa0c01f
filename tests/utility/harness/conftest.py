"""Task files of lm-evaluation-harness over the tiny model's facts, and both ways to run them: stock's and ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, EngineSettings, open_checkpoint
from audit.engines.hf import HFEngine
from audit.progress import Silent
from audit.protocols import Engine
from audit.utility.harness.adapter import harness_model
from audit.utility.harness.asking import Asker
from audit.utility.harness.encode import Encoder
from tests.helpers import tiny

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e .[utility]")

_TAIL = """test_split: train
fewshot_split: train
num_fewshot: {shots}
metadata:
  version: 1.0
"""
_FILES = {
    "tiny_choice": """task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
""",
    "tiny_bare": """task: tiny_bare
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: multiple_choice
doc_to_text: question
target_delimiter: ""
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_mutual_info, aggregation: mean, higher_is_better: true}}
""",
    "tiny_last_word": """task: tiny_last_word
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: loglikelihood
doc_to_text: "{{{{question}}}} "
doc_to_target: "{{{{choices[gold]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
""",
    "tiny_rolling": """task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
  - {{metric: bits_per_byte}}
""",
    "tiny_answers": """task: tiny_answers
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: generate_until
doc_to_text: question
doc_to_target: "{{{{choices[gold]}}}}"
generation_kwargs: {{until: ["\\n", " re"], max_gen_toks: 24, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}
""",
}


def documents() -> list[dict[str, Any]]:
    """The tiny model's facts with the other answers to questions of that kind; two texts exceed the context."""
    rows = []
    for number, (question, answer) in enumerate(tiny.FACTS):
        kind = question.split()[3]
        others = sorted({other for asked, other in tiny.FACTS if asked.split()[3] == kind} - {answer})
        choices = sorted((answer, *others))
        text = f"{question} {answer}. " * (60 if number in (3, 7) else 2)
        rows.append({"question": question, "choices": choices, "gold": choices.index(answer), "text": text})
    return rows


def write_tasks(folder: Path, *, shots: int = 0, rows: list[dict[str, Any]] | None = None) -> Path:
    """Task files and their data in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "facts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in (rows or documents())), encoding="utf-8")
    for name, text in _FILES.items():
        (folder / f"{name}.yaml").write_text((text + _TAIL).format(data=data, shots=shots), encoding="utf-8")
    return folder


TASKS = tuple(_FILES)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ours, and that of the library that reads task data; the hub is out of reach."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("harness") / "model")


@pytest.fixture(scope="session")
def opened(trained: Path) -> Checkpoint:
    return open_checkpoint(str(trained))


@pytest.fixture(scope="session")
def hf(opened: Checkpoint) -> HFEngine:
    return HFEngine(opened, EngineSettings(name="hf", device="cpu"))


def evaluated(model: Any, tasks: list[str], include: Path, *, chat: bool, **more: Any) -> dict[str, Any]:
    """What lm-eval's own `simple_evaluate` gives for a model class of its own, or for ours."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=TaskManager(include_path=include, include_defaults=False),
        apply_chat_template=chat,
        fewshot_random_seed=0,
        bootstrap_iters=0,
        **more,
    )
    assert found is not None
    return dict(found)


def stock(
    folder: Path, tasks: list[str], include: Path, *, chat: bool, limit: int | None = None, **arguments: Any
) -> dict[str, Any]:
    """lm-eval's own class for transformers models."""
    settings = {"pretrained": str(folder), "dtype": "float32", **arguments}
    return evaluated("hf", tasks, include, chat=chat, model_args=settings, device="cpu", batch_size=8, limit=limit)


def ours(engine: Engine, checkpoint: Checkpoint, tasks: list[str], include: Path, *, chat: bool) -> dict[str, Any]:
    asker = Asker(lambda: engine, engine.identity, checkpoint.vocab_size or 1, Silent())
    return evaluated(harness_model(Encoder(checkpoint), asker), tasks, include, chat=chat)


@dataclass
class Differences:
    """Between two runs of the same tasks."""

    texts: int = 0
    """Scored texts: answers after a context."""
    largest: float = 0.0
    """Nats, of their log-likelihoods."""
    rolled: int = 0
    """Whole texts, of hundreds of tokens."""
    relative: float = 0.0
    """Largest part by which their log-likelihoods differ: sums of thousands of nats in float32."""
    answers: int = 0


def compared(one: dict[str, Any], other: dict[str, Any]) -> Differences:
    """How far log-likelihoods lie apart; prompts, greedy flags and answers must be equal."""
    seen = Differences()
    assert one["samples"].keys() == other["samples"].keys()
    for task, rows in one["samples"].items():
        theirs = {row["doc_id"]: row for row in other["samples"][task]}
        assert len(rows) == len(theirs) > 0
        for row in rows:
            twin = theirs[row["doc_id"]]
            assert row["arguments"] == twin["arguments"]  # the same prompts, character by character
            for mine, its in zip(row["resps"], twin["resps"], strict=True):
                for a, b in zip(mine, its, strict=True):
                    if isinstance(a, str):
                        assert a == b
                        seen.answers += 1
                    elif isinstance(a, tuple):
                        assert a[1] == b[1]
                        seen.texts += 1
                        seen.largest = max(seen.largest, abs(a[0] - b[0]))
                    else:
                        seen.rolled += 1
                        seen.relative = max(seen.relative, abs(a / b - 1))
    return seen


def metrics(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(task, metric) -> value, of everything that is a number of the model's."""
    return {
        (task, name): value
        for task, values in found["results"].items()
        for name, value in values.items()
        if "," in name and isinstance(value, int | float) and "_stderr" not in name
    }
