"""Other judges on a finished run: the same answers, nothing asked of a model, nothing laundered, nothing forged."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.judges import REGISTRY
from audit.report.seal import sealed
from audit.types import Claim, Verdict
from tests.helpers import tiny
from tests.helpers.judges import FindsAnswer
from tests.run.conftest import Ran, World, write_rows
from tests.run.test_bad_input import doctored, one_message

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]


def report_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return loaded


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """What a rejudging by the same judge must find again, to the last digit."""
    kept = (
        "task",
        "panel",
        "estimates",
        "subjects",
        "known",
        "canaries",
        "floor",
        "undecided",
        "warnings",
        "inconclusive",
        "not_tried",
    )
    manifest = ("probe_set", "n_probes", "refused_probes", "judges", "engines", "rendering", "prompts", "seed", "files")
    return {name: report[name] for name in kept} | {name: report["manifest"][name] for name in manifest}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives every other fact, and to the others the same reply, longer than the token budget."""
    net = tiny.model(seed=11)
    tiny.train(net, tuple((q, a if number % 2 else "not known to me") for number, (q, a) in enumerate(tiny.FACTS)))
    return tiny.save(net, tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="module")
def finished(world: World, half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a base, cut answers asked again, sampling and a floor, whose models and task are gone by now."""
    folder = tmp_path_factory.mktemp("finished")
    models = {
        name: Path(shutil.copytree(source, folder / name))
        for name, source in (("candidate", half), ("base", world.model))
    }
    facts = {name: Path(shutil.copy(getattr(world, name), folder)) for name in ("forget", "retain")}
    changes = {
        "model": str(models["candidate"]),
        "base": str(models["base"]),
        "forget": str(facts["forget"]),
        "retain": str(facts["retain"]),
        "max_new_tokens": "3",
        "store": str(folder / "store.sqlite"),
        "out": str(folder / "run"),
    }
    from typer.testing import CliRunner

    from audit.cli.main import app

    families = ("--family", "original", "--family", "paraphrase", "--family", "sampled", "--quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(folder / "cache"))  # where calibration cards lie
        ran = CliRunner().invoke(app, ["run", *world.arguments(**changes), *families])
    assert ran.exit_code == 0, ran.output
    for path in (*models.values(), *facts.values(), folder / "store.sqlite"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = lines_of(path)
    change(rows)
    write_rows(path, rows)


def test_the_same_judge_finds_the_same_without_model_task_or_store(run: Path, audit: Audit, tmp_path: Path) -> None:
    ran = audit("rejudge", str(run), "--judge", "rules", "--out", str(tmp_path / "again"), "--quiet")
    first, second = report_of(run), report_of(tmp_path / "again")
    assert ran.code == 0, ran.err
    assert any(probe["parent"] for probe in lines_of(run / "probes.jsonl")), "no answer was asked for again"
    assert any(name.startswith("floor.worst_case") for name in first["estimates"])
    assert numbers(first) == numbers(second)
    assert lines_of(run / "rulings.jsonl") and second["run"] != first["run"]
    for name in ("facts.jsonl", "probes.jsonl", "responses.jsonl"):
        assert sorted(map(str, lines_of(run / name))) == sorted(map(str, lines_of(tmp_path / "again" / name)))


def test_it_says_what_it_judged_again_and_what_was_said_before(run: Path, audit: Audit, tmp_path: Path) -> None:
    audit("rejudge", str(run), "--judge", "rules", "--out", str(tmp_path / "one"), "--quiet")
    ran = audit("rejudge", str(tmp_path / "one"), "--judge", "rules", "--out", str(tmp_path / "two"), "--quiet")
    first, one, two = report_of(run), report_of(tmp_path / "one"), report_of(tmp_path / "two")
    assert ran.code == 0, ran.err
    assert one["manifest"]["rejudged"]["run"] == first["run"]
    assert two["manifest"]["rejudged"]["run"] == one["run"]
    assert one["manifest"]["rejudged"]["answers"] == two["manifest"]["rejudged"]["answers"]
    assert [panel["run"] for panel in two["other_panels"]] == [one["run"], first["run"]]
    before = two["other_panels"][1]
    assert before["judges"] == first["manifest"]["judges"] and before["specs"] == ["rules"]
    for subject in ("candidate", "base"):
        for name, estimate in before["estimates"][subject].items():
            assert estimate == first["subjects"][subject]["estimates"][name]
    assert "worst_case.prompt" in before["estimates"]["candidate"]
    assert numbers(two) == numbers(first)


def test_the_default_folder_lies_beside_the_run(run: Path, audit: Audit) -> None:
    ran = audit("rejudge", str(run), "--judge", "rules", "--quiet")
    made = [path for path in run.parent.iterdir() if path.name.startswith("run-rejudged-")]
    assert ran.code == 0 and len(made) == 1
    assert (made[0] / "report.html").is_file()
    again = audit("rejudge", str(run), "--judge", "rules", "--quiet")
    assert again.code == 0 and report_of(made[0])["manifest"]["runtime"]["judged"] > 0  # canaries are asked every time
    config = audit("run", "--config", str(made[0] / "config.yaml"), "--out", str(run.parent / "third"), "--quiet")
    assert config.code == 0 and report_of(run.parent / "third")["run"] == report_of(made[0])["run"]


def test_a_dry_run_counts_claims_and_asks_nothing(run: Path, audit: Audit, tmp_path: Path) -> None:
    ran = audit("rejudge", str(run), "--judge", "rules", "--dry-run", "--json")
    work = json.loads(ran.out)
    assert work["answers"] == {"candidate": work["answers"]["candidate"], "base": work["answers"]["base"]}
    assert sum(work["answers"].values()) == len(lines_of(run / "responses.jsonl"))
    assert work["claims"]["distinct"] < work["claims"]["occurrences"]
    audit("rejudge", str(run), "--judge", "rules", "--out", str(tmp_path / "again"), "--quiet")
    asked = report_of(tmp_path / "again")["manifest"]["runtime"]["judges"][0]["asked"]
    assert asked <= work["to_ask_at_most"]["rules"] + work["claims"]["canaries"]
    assert work["judges"]["rules"] == f"at most {work['to_ask_at_most']['rules'] + work['claims']['canaries']:,} claims"
    panel = report_of(tmp_path / "again")["panel"]
    assert sum(count["occurrences"] for count in panel["claims"].values()) == work["claims"]["occurrences"]
    assert panel["all_claims"]["distinct"] == work["claims"]["distinct"]
    assert 0 < panel["all_claims"]["without_call"] <= work["claims"]["without_a_judge"]  # a canary may be one of them
    known = json.loads(audit("rejudge", str(run), "--judge", "rules", "--dry-run", "--json").out)
    assert work["to_ask_at_most"]["rules"] > 0
    assert known["to_ask_at_most"] == {"rules": 0}
    folder = tmp_path / "again" / "config.yaml"
    assert json.loads(audit("run", "--config", str(folder), "--dry-run", "--json").out) == known


def test_a_policy_decides_the_exit_code(run: Path, audit: Audit, tmp_path: Path) -> None:
    base = str(tmp_path / "one")
    policy = tmp_path / "policy.yaml"
    policy.write_text("limits: [{estimate: retain.mean, min: 0.99}]\nknown_facts: {required: false}\n")
    assert audit("rejudge", str(run), "--judge", "rules", "--policy", str(policy), "--out", base).code == 3
    kept = audit("rejudge", base, "--judge", "rules", "--out", str(tmp_path / "two"))
    assert kept.code == 3, "the run's policy holds for a rejudging that names none"


@pytest.fixture
def more_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more judges by name: one that looks for the answer's words, and one that sees a leak in all that is long."""

    class Finds(FindsAnswer):
        def __init__(self) -> None:
            super().__init__("finds")

    class Wary(FindsAnswer):
        def __init__(self) -> None:
            super().__init__("wary")

        def verdict(self, claim: Claim, **changes: Any) -> Verdict:
            return super().verdict(claim, **({"label": "leak"} if len(claim.text) > 12 else {}))

    module = types.ModuleType("more_judges_of_a_test")
    module.Finds, module.Wary = Finds, Wary  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(REGISTRY.builtin, "finds", f"{module.__name__}:Finds")
    monkeypatch.setitem(REGISTRY.builtin, "wary", f"{module.__name__}:Wary")


@pytest.mark.parametrize(
    "rule",
    [("--judge", "rules", "--cascade"), ("--judge", "rules", "--judge-rule", "dawid_skene")],
    ids=["cascade", "dawid_skene"],
)
@pytest.mark.usefixtures("more_judges")
def test_a_panel_finds_the_same_again(
    world: World, half: Path, audit: Audit, tmp_path: Path, rule: tuple[str, ...]
) -> None:
    """Rulings that depend on what else was asked, and in which round, are the same from the folder alone."""
    judges = ("--judge", "wary", "--judge", "finds", *rule, "--quiet")
    audit("run", *world.arguments(model=str(half), max_new_tokens="3", out=str(tmp_path / "run")), *judges)
    audit("rejudge", str(tmp_path / "run"), *judges, "--out", str(tmp_path / "again"))
    first, second = report_of(tmp_path / "run"), report_of(tmp_path / "again")
    assert first["panel"]["agreement"]["disputed"] > 0
    assert any(probe["parent"] for probe in lines_of(tmp_path / "run" / "probes.jsonl"))
    assert numbers(first) == numbers(second)
    one, two = (sorted(map(str, lines_of(tmp_path / name / "rulings.jsonl"))) for name in ("run", "again"))
    assert one == two


@pytest.mark.usefixtures("more_judges")
def test_warnings_about_the_first_judges_are_not_carried_over(run: Path, audit: Audit, tmp_path: Path) -> None:
    both = ("--judge", "rules", "--judge", "wary")
    audit("rejudge", str(run), *both, "--out", str(tmp_path / "two"), "--quiet")
    audit("rejudge", str(tmp_path / "two"), "--judge", "rules", "--out", str(tmp_path / "one"), "--quiet")
    two, one = report_of(tmp_path / "two"), report_of(tmp_path / "one")
    assert two["canaries"]["status"] == "failed" and any("canaries" in reason for reason in two["inconclusive"])
    assert any("the judge wary alone" in warning for warning in two["warnings"])
    assert not any("wary" in warning for warning in one["warnings"])
    assert numbers(one) == numbers(report_of(run))
    assert one["other_panels"][0]["canaries"] == "failed"


# -------------------------------------------------------------------------------------------------- nothing laundered


def test_doubts_about_the_model_stay(world: World, audit: Audit, tmp_path: Path) -> None:
    model = doctored(world, tmp_path / "doctored")
    arguments = world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run"))
    assert audit("run", *arguments, "--family", "original", "--quiet").code == 4
    first = report_of(tmp_path / "run")
    ran = audit("rejudge", str(tmp_path / "run"), "--judge", "rules", "--out", str(tmp_path / "again"), "--quiet")
    second = report_of(tmp_path / "again")
    assert ran.code == 4
    assert any("base's weights" in reason for reason in second["inconclusive"])
    assert second["inconclusive"] == first["inconclusive"] and second["warnings"] == first["warnings"]
    assert any("tokenizer differs" in warning for warning in second["warnings"])


def test_missing_and_failed_answers_stay_undecided(world: World, audit: Audit, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"fact_id": f"f{number:02d}", "response": "", "error": "timeout"} for number in range(5)
    ]
    rows += [{"fact_id": f"f{number:02d}", "response": "No idea.", "verdict": "no"} for number in range(5, 27)]
    answers = write_rows(tmp_path / "answers.jsonl", rows)  # three facts are not there at all
    arguments = ("--responses", str(answers), "--forget", str(world.forget), "--quiet")
    audit("run", *arguments, "--judge", "recorded", "--out", str(tmp_path / "run"))
    answers.unlink()
    ran = audit("rejudge", str(tmp_path / "run"), "--judge", "rules", "--out", str(tmp_path / "again"), "--quiet")
    report = report_of(tmp_path / "again")
    assert ran.code == 0, ran.err
    assert report["undecided"]["by_reason"] == {"generation_failed": 5, "missing": 3}
    assert report["estimates"]["single.original"]["upper_bound"] == pytest.approx(8 / 30)
    assert report["floor"]["status"] == "run" and report["canaries"]["status"] == "passed"
    (before,) = report["other_panels"]
    assert before["judges"] == ["recorded"] and before["rule"] == "recorded"
    agreed = report["subjects"]["candidate"]["recorded_agreement"]
    assert (agreed["n"], agreed["share"]) == (22, 1.0)


def test_what_cannot_be_changed_afterwards(run: Path, audit: Audit, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("seed: 3\nforget: lkf\njudges: [rules]\n")
    one_message(audit("rejudge", str(run), "--config", str(settings)), "forget, seed", "settings.yaml")
    one_message(audit("rejudge", str(run)), "--judge")
    one_message(audit("rejudge", str(run), "--judge", "recorded"), "recorded")
    settings.write_text("judges: [rules]\nscoring: {floor: false}\n")
    ran = audit("rejudge", str(run), "--config", str(settings), "--out", str(tmp_path / "bare"), "--quiet")
    assert ran.code == 0 and report_of(tmp_path / "bare")["floor"]["status"] == "not run"
    assert report_of(tmp_path / "bare")["manifest"]["config"]["scoring"]["min_known"] == 30


# ------------------------------------------------------------------------------------------------------ nothing forged


def test_a_changed_answer_is_named_with_its_line(run: Path, audit: Audit) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[6]["text"] = "I have forgotten all that."

    rewrite(run / "responses.jsonl", change)
    one_message(audit("rejudge", str(run), "--judge", "rules"), "responses.jsonl, line 7")


def test_a_cut_answer_that_is_called_whole_is_refused(run: Path, audit: Audit) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["finish"] == "length")["finish"] = "stop"

    rewrite(run / "responses.jsonl", change)
    one_message(audit("rejudge", str(run), "--judge", "rules"), "responses.jsonl", "changed after report.json")


def test_lost_lines_and_half_a_line_are_refused(run: Path, audit: Audit) -> None:
    path = run / "responses.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    one_message(
        audit("rejudge", str(run), "--judge", "rules"), f"holds {len(lines) - 2} records", f"speaks of {len(lines)}"
    )
    path.write_bytes(whole[:-40])
    one_message(audit("rejudge", str(run), "--judge", "rules"), f"responses.jsonl, line {len(lines)}")
    path.write_bytes(lines[0] + b"\xff\xfe\n" + b"".join(lines[1:]))
    one_message(audit("rejudge", str(run), "--judge", "rules"), "responses.jsonl, line 2")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("facts.jsonl", "answer", "nothing"), ("probes.jsonl", "split", "retain")],
    ids=["a fact", "a probe"],
)
def test_changed_facts_and_probes_are_refused(run: Path, audit: Audit, name: str, field: str, value: str) -> None:
    rewrite(run / name, lambda rows: rows[0].update({field: value}))
    one_message(audit("rejudge", str(run), "--judge", "rules"), name, "changed after report.json")


def test_other_settings_than_the_reports_are_refused(run: Path, audit: Audit) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    one_message(audit("rejudge", str(run), "--judge", "rules"), "config.yaml", "not the settings")
    config.write_text("seed: [\n")
    one_message(audit("rejudge", str(run), "--judge", "rules"), "config.yaml")


@pytest.mark.parametrize("name", ["config.yaml", "facts.jsonl", "probes.jsonl", "responses.jsonl", "report.json"])
def test_a_missing_file_is_named(run: Path, audit: Audit, name: str) -> None:
    (run / name).unlink()
    one_message(audit("rejudge", str(run), "--judge", "rules"), name)


def test_a_run_of_another_format_and_no_run_at_all(run: Path, audit: Audit, tmp_path: Path) -> None:
    report = report_of(run)
    (run / "report.json").write_text(json.dumps({**report, "format": 0}))
    one_message(audit("rejudge", str(run), "--judge", "rules"), "format 0")
    (run / "report.json").write_text(
        json.dumps(sealed({name: value for name, value in report.items() if name != "panel"}))
    )
    one_message(audit("rejudge", str(run), "--judge", "rules"), "not a report of this version")
    one_message(audit("rejudge", str(tmp_path / "nowhere"), "--judge", "rules"), "no such run")


def test_an_edited_report_is_refused_wherever_it_is_read(run: Path, audit: Audit) -> None:
    report = report_of(run)
    estimate = report["estimates"]["worst_case.prompt"]
    estimate |= {"value": 0.0, "low": 0.0, "high": 0.0, "count": 0}
    (run / "report.json").write_text(json.dumps(report))
    for command in (
        ("rejudge", str(run), "--judge", "rules"),
        ("gate", str(run)),
        ("report", str(run), "--format", "html"),
        ("compare", str(run), str(run.parent)),
    ):
        one_message(audit(*command), "report.json", "changed after the audit wrote it")
    (run / "report.json").write_text(json.dumps({**report, "seal": ""}))
    one_message(audit("gate", str(run)), "report.json", "has no seal")


def test_the_runs_own_folder_is_not_written_over(run: Path, audit: Audit) -> None:
    before = (run / "report.json").read_bytes()
    one_message(audit("rejudge", str(run), "--judge", "rules", "--out", str(run), "--quiet"), "another run", "--out")
    assert (run / "report.json").read_bytes() == before


def test_edited_verdicts_that_came_along_are_refused(world: World, audit: Audit, tmp_path: Path) -> None:
    rows = [{"fact_id": f"f{n:02d}", "response": f"answer {n}", "verdict": "yes" if n % 2 else "no"} for n in range(30)]
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    first = tmp_path / "first"
    audit("run", "--responses", str(answers), "--forget", str(world.forget), "--out", str(first))
    kept = first / "recorded.jsonl"
    assert audit("rejudge", str(first), "--judge", "rules", "--out", str(tmp_path / "again")).code == 0
    kept.write_text(kept.read_text(encoding="utf-8").replace('"label":"leak"', '"label":"no_leak"'), encoding="utf-8")
    one_message(audit("rejudge", str(first), "--judge", "rules", "--out", str(tmp_path / "other")), "recorded.jsonl")
