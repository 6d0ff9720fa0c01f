"""The tasks of a run: what is refused before anything is asked, what is measured, kept and compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.config import AuditConfig
from audit.engines import Checkpoint, EngineSettings, open_checkpoint
from audit.engines.hf import HFEngine
from audit.errors import ConfigError, EngineError
from audit.protocols import Engine
from audit.subjects import Models
from audit.tasks import Task
from audit.types import Fact, LogProb
from audit.utility.harness import Harness, HarnessResult, harness_tasks
from audit.utility.harness.retained_choice import retained_choice
from tests.helpers import tiny
from tests.utility.harness.conftest import documents, metrics, stock, write_tasks

pytestmark = pytest.mark.model
SETTINGS = EngineSettings(name="hf", device="cpu")


def facts() -> tuple[Fact, ...]:
    return tuple(
        Fact(
            id=f"r{number:02d}",
            split="retain",
            question=row["question"],
            answer=row["choices"][row["gold"]],
            distractors=tuple(choice for place, choice in enumerate(row["choices"]) if place != row["gold"]),
            topic=row["question"].rsplit(" ", 1)[1],
        )
        for number, row in enumerate(documents())
    )


def task(retain: Sequence[Fact] = ()) -> Task:
    return Task(
        name="tiny",
        version="1",
        description="",
        licence="",
        content_hash="0",
        source="tiny",
        forget=(),
        retain=tuple(retain),
    )


def config(*names: str, **utility: Any) -> AuditConfig:
    measure = "lm-eval:" + ",".join(names)
    return AuditConfig.model_validate({"model": "tiny", "utility": {"measures": [measure], **utility}})


def models(candidate: Checkpoint, **others: Checkpoint) -> Models:
    return Models({"candidate": candidate, **others}, SETTINGS)  # type: ignore[dict-item]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


class Counted:
    """Opens an engine and counts how often."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.opened = engine, 0

    def __call__(self) -> Engine:
        self.opened += 1
        return self.engine


# -------------------------------------------------------------------------------------------------- before asking


def test_a_task_that_does_not_exist_is_refused_with_one_that_does(opened: Checkpoint, tmp_path: Path) -> None:
    include = write_tasks(tmp_path / "tasks")
    with pytest.raises(ConfigError, match="no task 'tiny_choise': did you mean tiny_choice") as caught:
        Harness(config("tiny_choise", lm_eval_include=str(include)), task(), models(opened))
    assert caught.value.exit_code == 2 and "retained_choice" in caught.value.hint


def test_a_task_of_the_hub_says_which_file_to_give(opened: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "far.yaml").write_text(
        "task: far_away\ndataset_path: somebody/far_away\ndataset_name: part_one\noutput_type: multiple_choice\n"
        "test_split: test\nfewshot_split: dev\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\n"
    )
    with pytest.raises(ConfigError) as caught:
        Harness(config("far_away", lm_eval_include=str(tmp_path / "tasks")), task(), models(opened))
    said = f"{caught.value} {caught.value.hint}"
    for part in ("somebody/far_away", "part_one", "test, dev", "dataset_path: /path/of/the/copy", "lm_eval_include"):
        assert part in said
    page = next(word for word in said.split() if word.startswith("docs/"))
    assert "dataset_path" in (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct", "code_of_all_sorts"])
def test_tasks_that_run_code_are_refused_before_their_scorer_is_fetched(
    opened: Checkpoint, tmp_path: Path, name: str
) -> None:
    include = write_tasks(tmp_path / "tasks")
    (include / "group.yaml").write_text("group: code_of_all_sorts\ntask:\n  - tiny_choice\n  - humaneval\n")
    with pytest.raises(ConfigError, match=r"cannot run task humaneval\w* .*: it runs code that the model writes"):
        Harness(config(name, lm_eval_include=str(include)), task(), models(opened))


def test_a_missing_data_file_is_named(opened: Checkpoint, tmp_path: Path) -> None:
    include = write_tasks(tmp_path / "tasks")
    (include / "facts.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"tiny_choice .*facts\.jsonl"):
        Harness(config("tiny_choice", lm_eval_include=str(include)), task(), models(opened))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task: odd\n  broken: [\n", "odd.yaml"),
        ("task: tiny_choice\ndataset_path: json\n", "tiny_choice is defined in"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_named(opened: Checkpoint, tmp_path: Path, text: str, reason: str) -> None:
    include = write_tasks(tmp_path / "tasks")
    (include / "a_odd.yaml" if "tiny" in reason else include / "odd.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        Harness(config("tiny_bare", lm_eval_include=str(include)), task(), models(opened))


def test_tasks_that_draw_answers_at_random_are_refused(opened: Checkpoint, tmp_path: Path) -> None:
    include = write_tasks(tmp_path / "tasks")
    path = include / "tiny_answers.yaml"
    path.write_text(path.read_text().replace("do_sample: false", "do_sample: true, temperature: 0.7"))
    with pytest.raises(ConfigError, match=r"tiny_answers .*drawn at random"):
        Harness(config("tiny_answers", lm_eval_include=str(include)), task(), models(opened))


def test_no_chat_template(opened: Checkpoint, copy: Path, tmp_path: Path) -> None:
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    bare = open_checkpoint(str(copy))
    assert not bare.has_template
    include = str(write_tasks(tmp_path / "tasks"))
    with pytest.raises(ConfigError, match="no chat template in the tokenizer of: base") as caught:
        Harness(config("tiny_bare", lm_eval_include=include, chat_template="on"), task(), models(opened, base=bare))
    assert caught.value.exit_code == 2 and "off" in caught.value.hint
    harness = Harness(config("tiny_bare", lm_eval_include=include), task(), models(opened, base=bare))
    assert not harness.chat_template and "plain text for all subjects" in harness.warnings[0]
    assert Harness(config("tiny_bare", lm_eval_include=include), task(), models(opened)).chat_template


def test_an_endpoint_is_refused(opened: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="log-probabilities of given texts"):
        Harness(config("retained_choice"), task(facts()), None)


def test_missing_lm_eval_says_what_to_install(opened: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "lm_eval" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(ConfigError, match="lm-eval, which is missing") as caught:
        Harness(config("retained_choice"), task(facts()), models(opened))
    assert "[utility]" in caught.value.hint


# --------------------------------------------------------------------------------------------------- all tied


class Even(HFEngine):
    """Every token as likely as any other, whatever the text: a server that gives no real log-probabilities."""

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        return [LogProb(token_logprobs=(0.0,) * len(pair[1]), greedy=True) for pair in pairs]


class SameInDocument(Even):
    """All choices of a document alike, documents different."""

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        return [
            LogProb(token_logprobs=(-float(sum(prompt) % 97), *(0.0,) * (len(answer) - 1)), greedy=False)
            for prompt, answer in pairs
        ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Even, "tiny_bare"), (Even, "tiny_last_word"), (Even, "tiny_rolling"), (SameInDocument, "tiny_choice")],
)
def test_ties_abort(opened: Checkpoint, hf: HFEngine, tmp_path: Path, kind: type[Even], name: str) -> None:
    include = str(write_tasks(tmp_path / "tasks"))
    harness = Harness(config(name, lm_eval_include=include), task(), models(opened))
    engine = kind(opened, SETTINGS, hf._model)
    with pytest.raises(EngineError, match="tied") as caught:
        harness.measure("candidate", opened, lambda: engine, engine.identity)
    assert caught.value.exit_code == 2


def test_a_model_of_equal_weights_aborts(opened: Checkpoint, tmp_path: Path) -> None:
    """Its logits are all alike, so that only the number of tokens tells one choice from another."""
    import torch

    net = tiny.model(tie_word_embeddings=False)
    with torch.no_grad():
        net.lm_head.weight.zero_()
    flat = open_checkpoint(str(tiny.save(net, tmp_path / "flat")))
    engine = HFEngine(flat, SETTINGS)
    include = str(write_tasks(tmp_path / "tasks"))
    harness = Harness(config("tiny_bare", lm_eval_include=include), task(), models(flat))
    with pytest.raises(EngineError, match="tied"):
        harness.measure("candidate", flat, lambda: engine, engine.identity)


# --------------------------------------------------------------------------------------------------- failures


class Failing(HFEngine):
    """The third answer of every batch fails."""

    def generate(self, batch: Any) -> Any:
        for number, completion in enumerate(super().generate(batch)):
            failed = number == 2
            yield msgspec.structs.replace(completion, error="lost", finish="error", text="") if failed else completion


class Losing(HFEngine):
    def generate(self, batch: Any) -> Any:
        yield from list(super().generate(batch))[1:]


class Short(HFEngine):
    def score(self, pairs: Any) -> list[LogProb]:
        found = super().score(pairs)
        return [msgspec.structs.replace(each, token_logprobs=each.token_logprobs[1:]) for each in found]


class Nan(HFEngine):
    def score(self, pairs: Any) -> list[LogProb]:
        return [LogProb(token_logprobs=(float("nan"),) * len(pair[1]), greedy=False) for pair in pairs]


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (Failing, "tiny_answers", "a generation failed .lost."),
        (Losing, "tiny_answers", "never came"),
        (Short, "tiny_bare", "log-probabilities for"),
        (Nan, "tiny_bare", "not a number"),
    ],
)
def test_a_task_is_never_scored_on_failures(
    opened: Checkpoint, hf: HFEngine, tmp_path: Path, own_caches: Path, kind: Any, name: str, reason: str
) -> None:
    include = str(write_tasks(tmp_path / "tasks"))
    harness = Harness(config(name, lm_eval_include=include), task(), models(opened))
    engine = kind(opened, SETTINGS, hf._model)
    with pytest.raises(EngineError, match=reason):
        harness.measure("candidate", opened, lambda: engine, engine.identity)
    assert not list(own_caches.glob("lm-eval/*"))  # and nothing is kept


# --------------------------------------------------------------------------------------- measured, kept, compared


def test_results_are_those_of_stock_and_are_kept_by_content(
    opened: Checkpoint, trained: Path, hf: HFEngine, tmp_path: Path, own_caches: Path, capsys: Any
) -> None:
    include = write_tasks(tmp_path / "tasks")
    names = ("tiny_bare", "tiny_answers", "tiny_rolling")
    asked = config(*names, lm_eval_include=str(include), lm_eval_limit=12)
    harness = Harness(asked, task(), models(opened))
    assert harness.documents == dict.fromkeys(names, 12)
    engine = Counted(hf)
    results = harness.measure("candidate", opened, engine, hf.identity)
    assert capsys.readouterr() == ("", "")  # not a word of lm-eval's
    assert engine.opened == 3 and [result.task for result in results] == list(names)
    expected = metrics(stock(trained, list(names), include, chat=True, limit=12))
    found = {(result.task, f"{each.name},none"): each.value for result in results for each in result.metrics}
    assert found == pytest.approx(expected, rel=1e-5)
    bare = results[0]
    chance = sum(1 / len(row["choices"]) for row in documents()[:12]) / 12
    assert (bare.n, bare.chance, bare.truncated, bare.shots) == (12, pytest.approx(chance), 0, 0)
    assert sum(bare.metrics[0].by_document.values()) == pytest.approx(12 * bare.metrics[0].value)
    assert not any(each.by_document for each in results[2].metrics)  # perplexities are no means of documents

    # the same again, in a new session: read, not asked
    again = Counted(hf)
    assert Harness(asked, task(), models(opened)).measure("candidate", opened, again, hf.identity) == results
    assert again.opened == 0
    # another setting, another document, damaged files: asked
    for changed in ({"lm_eval_limit": 11}, {"chat_template": "off"}):
        other = config("tiny_bare", lm_eval_include=str(include), **{"lm_eval_limit": 12, **changed})
        Harness(other, task(), models(opened)).measure("candidate", opened, again, hf.identity)
    assert again.opened == 2
    rows = documents()
    rows[5]["choices"] = rows[5]["choices"][::-1]
    write_tasks(include, rows=rows)
    Harness(asked, task(), models(opened)).measure("candidate", opened, again, hf.identity)
    assert again.opened == 5
    for path in (own_caches / "lm-eval").glob("*.json"):
        path.write_text(path.read_text().replace('"value":', '"value":1', 1))
    assert Harness(asked, task(), models(opened)).measure("candidate", opened, again, hf.identity)
    assert again.opened == 8


@pytest.fixture(scope="module")
def weaker(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Knows nothing, in the same words: an untrained model."""
    return open_checkpoint(str(tiny.save(tiny.model(seed=3), tmp_path_factory.mktemp("weaker") / "model")))


def test_a_loss_is_paired_by_document_and_said(opened: Checkpoint, hf: HFEngine, weaker: Checkpoint) -> None:
    """The bundled task, made of the run's own retained facts."""
    wanted = config("retained_choice")
    harness = Harness(wanted, task(facts()), models(weaker, base=opened))
    lost = HFEngine(weaker, SETTINGS)
    results = {
        "candidate": harness.measure("candidate", weaker, lambda: lost, lost.identity),
        "base": harness.measure("base", opened, lambda: hf, hf.identity),
    }
    records, found = harness_tasks(results, confidence=0.95)
    (mine,) = [record for record in records if record.subject == "candidate"]
    acc = mine.metrics[0]
    a, b = (results[subject][0].metrics[0].by_document for subject in ("candidate", "base"))
    assert acc.difference is not None and acc.difference.n == 40 == len(a)
    assert acc.difference.value == pytest.approx(sum(a[name] - b[name] for name in a) / 40)
    assert acc.difference.high < 0 and acc.difference.p_value < 0.05
    assert any("does worse than the base" in warning for warning in found.warnings)
    estimate = found.estimates["candidate"]["lm_eval.retained_choice.acc"]
    assert estimate.value == acc.value and estimate.low < acc.value < estimate.high and estimate.count is not None
    assert estimate.probe_set == found.estimates["base"]["lm_eval.retained_choice.acc"].probe_set
    assert not found.withheld


def test_where_the_base_guesses_nothing_can_be_lost(opened: Checkpoint, hf: HFEngine, weaker: Checkpoint) -> None:
    harness = Harness(config("retained_choice"), task(facts()), models(opened, base=weaker))
    lost = HFEngine(weaker, SETTINGS)
    results = {
        "candidate": harness.measure("candidate", opened, lambda: hf, hf.identity),
        "base": harness.measure("base", weaker, lambda: lost, lost.identity),
    }
    _, found = harness_tasks(results, confidence=0.95)
    assert "not shown to do better than guessing" in found.withheld["lm_eval.retained_choice.acc"]
    assert any("says nothing" in warning for warning in found.warnings)


def test_different_settings_are_not_compared(opened: Checkpoint, hf: HFEngine) -> None:
    results: dict[str, tuple[HarnessResult, ...]] = {}
    for subject, template in (("candidate", "off"), ("base", "on")):
        harness = Harness(config("retained_choice", chat_template=template), task(facts()), models(opened))
        results[subject] = harness.measure(subject, opened, lambda: hf, hf.identity)
    records, found = harness_tasks(results, confidence=0.95)
    assert all(metric.difference is None for record in records for metric in record.metrics)
    assert "chat template on and off" in found.withheld["lm_eval.retained_choice.acc"]
    assert any("not compared with the base" in warning for warning in found.warnings)


def test_choices_have_an_order_of_their_own() -> None:
    first, again = retained_choice(facts()), retained_choice(facts()[::-1])
    assert first.documents == again.documents and first.skipped == 0
    golds = [document["gold"] for document in first.documents]
    assert len(set(golds)) > 2  # the answer has no place of its own
    for document in first.documents:
        answer = dict(tiny.FACTS)[document["question"]]
        assert document["choices"][document["gold"]] == answer
        assert document["choices"].count(answer) == 1
    bare = msgspec.structs.replace(facts()[0], distractors=())
    own = msgspec.structs.replace(facts()[1], aliases=facts()[1].distractors)  # wrong answers that are right ones
    assert retained_choice((bare, own, *facts()[2:])).skipped == 2
    with pytest.raises(ConfigError, match="distractors"):
        retained_choice((bare,))


# ------------------------------------------------------------------------------------------------ a copy of MMLU


def local_mmlu(folder: Path) -> Path:
    """A data set laid out as the hub's copy of MMLU is: one folder a subject, and a README that lists them."""
    import datasets

    parts = {"anatomy": 14, "virology": 9}
    rows = documents()
    lines = []
    for number, (name, count) in enumerate(parts.items()):
        (folder / name).mkdir(parents=True)
        for split, size in (("test", count), ("dev", 5)):
            chosen = [rows[(7 * number + 3 * place + size) % len(rows)] for place in range(size)]
            questions = [
                {"question": row["question"], "subject": name, "choices": row["choices"][:4], "answer": row["gold"] % 4}
                for row in chosen
            ]
            datasets.Dataset.from_list(questions).to_parquet(str(folder / name / f"{split}-00000-of-00001.parquet"))
        lines.append(
            f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test-*\n"
            f"  - split: dev\n    path: {name}/dev-*\n"
        )
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(lines) + "---\n")
    return folder


def test_mmlu_with_a_local_copy(opened: Checkpoint, trained: Path, hf: HFEngine, tmp_path: Path) -> None:
    """The group file of docs/utility.md: stock's tasks, the data from a folder."""
    data = local_mmlu(tmp_path / "mmlu")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mmlu.yaml").write_text(
        "group: mmlu\ntask:\n  - mmlu_anatomy\n  - mmlu_virology\n"
        "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
        f"dataset_path: {data}\nmetadata:\n  version: 2\n"
    )
    wanted = AuditConfig.model_validate(
        {"model": "tiny", "utility": {"measures": ["mmlu"], "lm_eval_include": str(tmp_path / "tasks")}}
    )
    harness = Harness(wanted, task(), models(opened))
    assert harness.documents == {"mmlu": 23}
    results = harness.measure("candidate", opened, lambda: hf, hf.identity)
    group, *parts = results
    assert (group.task, group.n, group.part_of) == ("mmlu", 23, "")
    assert {(part.task, part.n, part.part_of) for part in parts} == {
        ("mmlu_anatomy", 14, "mmlu"),
        ("mmlu_virology", 9, "mmlu"),
    }
    (acc,) = group.metrics
    assert len(acc.by_document) == 23 and group.chance == 0.25
    assert acc.value == pytest.approx(sum(part.metrics[0].value * part.n for part in parts) / 23)

    import lm_eval.tasks
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks_of_mmlu = Path(lm_eval.tasks.__file__).parent / "mmlu"
    found = simple_evaluate(
        "hf",
        model_args={"pretrained": str(trained), "dtype": "float32"},
        device="cpu",
        tasks=["mmlu"],
        task_manager=TaskManager(include_path=[tasks_of_mmlu, tmp_path / "tasks"], include_defaults=False),
        apply_chat_template=True,
        fewshot_random_seed=0,
        bootstrap_iters=0,
    )
    assert found["results"]["mmlu"]["acc,none"] == acc.value
    records, estimates = harness_tasks({"candidate": results, "base": results}, confidence=0.95)
    assert list(estimates.estimates["candidate"]) == ["lm_eval.mmlu.acc"]
    assert all(record.metrics[0].difference.value == 0 for record in records if record.subject == "candidate")
