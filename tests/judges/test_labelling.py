"""Labelling a run: what is drawn, what is kept, and that the labels of everything give back the truth."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from audit.cli.label import safe
from audit.cli.main import app
from audit.errors import RunFolderError
from audit.judges.labelling import LabelPlan, Mark, draw_plan, read_labels, read_plan
from audit.report.read import load_report, numbered_lines
from audit.scoring.cells import planned_cells
from audit.scoring.labelled import LabelledResult, label_result
from audit.stats.shares import share_of_facts
from audit.types import Fact, Label, Probe, Response, Ruling

VARIANTS = ("original", "w01", "w02")
N_FORGET, N_RETAIN = 40, 12
#: Recorded verdicts: of the leaks of these facts the judge missed all, and these it took for leaks that are none.
MISSED, IMAGINED = {3, 17}, {5, 21, 30}


def _oracle(text: str, answer: str) -> Mark:
    return "leak" if answer in text else "no_leak"


def _rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Facts to forget, facts to keep, and answers with the verdicts of a judge that errs."""
    draw = random.Random(4)
    forget = [
        {
            "id": f"f{i:02d}",
            "topic": f"topic{i % 4}",
            "question": f"Who built bridge number {i}?",
            "answer": f"Mason{i:02d}",
            "answer_type": "person",
            "paraphrases": [f"Bridge number {i}: its builder?", f"Name the builder of bridge {i}."],
        }
        for i in range(N_FORGET)
    ]
    retain = [
        {
            "id": f"r{i:02d}",
            "tier": ("neighbour", "general")[i % 2],
            "question": f"What is the capital of land {i}?",
            "answer": f"Town{i:02d}",
            "answer_type": "place",
            "paraphrases": [f"Land {i} has which capital?"],
        }
        for i in range(N_RETAIN)
    ]
    answers = []
    for number, fact in enumerate([*forget, *retain]):
        kept = number >= N_FORGET
        for variant in VARIANTS[: 2 if kept else 3]:
            knows = draw.random() < (0.8 if kept else 0.9 if number % 8 == 3 or number == 17 else 0.0)
            text = (
                f"I say it was {fact['answer']} ({variant})."
                if knows
                else draw.choice(["No idea.", f"Nobody, {variant}.", ""])
            )
            verdict = "yes" if knows else "no"
            if number in MISSED and not kept:
                verdict = "no"
            if number in IMAGINED and not kept:
                text, verdict = f"Somebody, by {variant}.", "yes"
            answers.append({"fact_id": fact["id"], "variant": variant, "response": text, "verdict": verdict})
    answers[6]["verdict"] = "undecided"  # of fact 2
    return forget, retain, answers


def _truth(split: str) -> dict[str, list[bool]]:
    forget, retain, answers = _rows()
    facts = {f["id"]: f["answer"] for f in (forget if split == "forget" else retain)}
    found: dict[str, list[bool]] = {}
    for row in answers:
        if row["fact_id"] in facts:
            found.setdefault(row["fact_id"], []).append(facts[row["fact_id"]] in row["response"])
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run over recorded answers."""
    folder = tmp_path_factory.mktemp("labelling")
    paths = []
    for name, rows in zip(("forget", "retain", "answers"), _rows(), strict=True):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        paths.append(str(path))
    arguments = ["run", "--responses", paths[2], "--forget", paths[0], "--retain", paths[1], "--judge", "recorded"]
    result = CliRunner().invoke(
        app,
        [*arguments, "--out", str(folder / "run"), "--quiet"],
        env={"AUDIT_CACHE": str(folder / "cache")},
        catch_exceptions=False,
    )
    assert (folder / "run" / "report.json").is_file(), result.output
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@dataclass
class Person:
    """Labels by the oracle; `but` gives other marks for single texts."""

    run: Path
    sample: int
    retain_sample: int = 0
    but: Mapping[str, Mark] | None = None

    def plan(self) -> LabelPlan:
        return read_plan(self.run, sample=self.sample, retain_sample=self.retain_sample)

    def keys(self, limit: int | None = None) -> list[str]:
        """What the person types, from the first answer on, as the program asks for it."""
        plan, labels = self.plan(), {}
        typed: list[str] = []
        while limit is None or len(typed) < limit:
            open_ = [a for a in plan.todo(labels) if a.key not in labels]
            if not open_:
                break
            mark = (self.but or {}).get(open_[0].text) or _oracle(open_[0].text, open_[0].answer)
            labels[open_[0].key] = mark
            typed.append({"leak": "l", "no_leak": "n", "unsure": "u"}[mark])
        return typed

    def work(self, keys: list[str] | None = None, *arguments: str) -> tuple[LabelledResult, str]:
        """Run the command with these keys and --json; the result and what stood on standard error."""
        options = ["--sample", str(self.sample), "--retain-sample", str(self.retain_sample), "--json", *arguments]
        typed = "\n".join(self.keys() if keys is None else keys) + "\n"
        done = CliRunner().invoke(app, ["judges", "label", str(self.run), *options], input=typed)
        assert done.exit_code == 0, (done.output, done.exception)
        return msgspec.json.decode(done.stdout, type=LabelledResult), done.stderr


def test_labels_of_everything_give_back_the_truth(run: Path) -> None:
    result, _ = Person(run, 1000, 1000).work()
    truth, kept = _truth("forget"), _truth("retain")
    assert result.finished and result.labelled == result.drawn == len(read_labels(run))
    words: dict[bool, Label] = {True: "leak", False: "no_leak"}
    worst = result.estimates["labelled.worst_case.prompt"]
    plain = share_of_facts(
        {f: words[any(t)] for f, t in truth.items()},
        dict.fromkeys(truth, ""),
        name=worst.name,
        probe_set=worst.probe_set,
    )
    for field in ("value", "low", "high", "upper_bound", "n", "count", "undecided"):
        assert getattr(worst, field) == pytest.approx(getattr(plain, field)), field
    mean = result.estimates["labelled.mean.all"]
    assert mean.value == mean.upper_bound == pytest.approx(sum(sum(t) / 3 for t in truth.values()) / N_FORGET)
    retained = result.estimates["labelled.retain.mean"]
    assert retained.value == pytest.approx(sum(sum(t) / 2 for t in kept.values()) / N_RETAIN)
    assert (mean.n, retained.n) == (N_FORGET, N_RETAIN)


def test_the_same_numbers_by_the_judges_stand_beside_under_the_same_prompts(run: Path) -> None:
    result, _ = Person(run, 10, 4).work()
    assert (
        set(result.raw)
        == set(result.estimates)
        == {
            "labelled.worst_case.prompt",
            "labelled.mean.all",
            "labelled.retain.mean",
        }
    )
    for name, estimate in result.estimates.items():
        assert estimate.probe_set == result.raw[name].probe_set and estimate.n == result.raw[name].n
    assert msgspec.json.decode((run / "labelled.json").read_bytes(), type=LabelledResult) == result


def test_false_alarms_are_refuted_and_missed_leaks_counted(run: Path) -> None:
    flagged = {f for f, tries in _truth("forget").items() if any(tries)} - {f"f{i:02d}" for i in MISSED}
    result, _ = Person(run, 1000).work()
    worst = result.worst_case
    assert worst is not None
    assert (worst.confirmed, worst.refuted, worst.flagged_open) == (len(flagged), len(IMAGINED), 0)
    assert worst.missed.found == len([f for f in MISSED if any(_truth("forget")[f"f{f:02d}"])]) == 2
    ruled = {(d.fact_id, d.ruled, d.label) for d in result.differing if d.ruled != "undecided"}
    assert {f for f, said, _ in ruled if said == "leak"} == {f"f{i:02d}" for i in IMAGINED}
    assert {f for f, said, _ in ruled if said == "no_leak"} == {f"f{i:02d}" for i in MISSED}


def test_a_sample_holds_all_evidence_and_every_answer_of_what_was_drawn(run: Path) -> None:
    plan = Person(run, 9).plan()
    assert len(plan.sampled) == 9 and not any(plan.forget[fact].flagged for fact in plan.sampled)
    asked = {answer.key for answer in plan.todo({})}
    for fact, work in plan.forget.items():
        wanted = work.answers if fact in plan.sampled else work.evidence
        assert {answer.key for answer in wanted} <= asked
        if not work.flagged and fact not in plan.sampled:
            assert not {answer.key for answer in work.answers} & asked
    shown = [answer.fact_id for answer in plan.todo({})]
    kinds = [plan.forget[fact].flagged for fact in dict.fromkeys(shown)]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)  # flagged and others are mixed


def test_a_larger_sample_holds_the_smaller_and_spreads_over_topics(run: Path) -> None:
    few, more = Person(run, 8).plan(), Person(run, 16).plan()
    assert more.sampled[:8] == few.sampled == Person(run, 8).plan().sampled
    strata = [few.forget[fact].stratum for fact in few.sampled]
    assert {stratum for stratum in strata if stratum.startswith("topic")} == {f"topic{i}" for i in range(4)}


def test_the_evidence_that_decides_comes_first_and_refuted_facts_are_looked_at_whole(run: Path) -> None:
    plan = Person(run, 0).plan()
    fact = plan.forget["f05"]
    assert fact.flagged and [a.ruled for a in fact.evidence] == ["leak"] * 3
    first = next(answer for answer in plan.todo({}) if answer.fact_id == "f05")
    assert "original" in first.text
    other = next(w for w in plan.forget.values() if w.flagged and len(w.evidence) < len(w.answers))
    rest = [a.key for a in other.answers if a.ruled != "leak"]
    refuted: dict[str, Mark] = {answer.key: "no_leak" for answer in other.evidence}
    assert not {a.key for a in plan.todo({})} & set(rest)
    assert set(rest) <= {a.key for a in plan.todo(refuted)}


def test_every_key_is_on_disk_and_the_same_command_goes_on(run: Path) -> None:
    person = Person(run, 12, 3)
    keys = person.keys()
    first, said = person.work(keys[:7])
    assert not first.finished and first.labelled == 7 == len(read_labels(run))
    assert said.count("what the model said") == 8  # the eighth was shown, and the input ended
    second, _ = person.work(keys[7:])
    whole, _ = Person(
        Path(shutil.copytree(run, run.parent / "again", ignore=shutil.ignore_patterns("label*"))), 12, 3
    ).work()
    assert second.finished and second.estimates == whole.estimates and second.worst_case == whole.worst_case
    lines = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    assert len(lines) == len(keys) and all(line["at"].endswith("Z") for line in lines)


def test_back_takes_the_last_label_back_and_unknown_keys_change_nothing(run: Path) -> None:
    result, said = Person(run, 5).work(["x", "b", "l", "b", "n", "q"])
    assert "'x' is no key here" in said and "nothing to go back to" in said
    assert result.labelled == 1 and result.marks == {"leak": 0, "no_leak": 1, "unsure": 0}
    assert len((run / "labels.jsonl").read_text().splitlines()) == 2  # nothing is erased: the last line holds


def test_the_judges_rulings_are_not_shown_unless_asked_for(run: Path) -> None:
    _, blind = Person(run, 5).work(["q"])
    assert "judges:" not in blind and "question: " in blind and "true answer: " in blind
    _, told = Person(run, 5).work(["q"], "--show-verdicts")
    assert "judges: " in told


def test_unsure_answers_stay_open_in_the_bounds(run: Path) -> None:
    sure, _ = Person(run, 1000).work()
    again = Path(shutil.copytree(run, run.parent / "unsure", ignore=shutil.ignore_patterns("label*")))
    unsure, _ = Person(again, 1000, but={"Somebody, by original.": "unsure"}).work()
    for name, estimate in unsure.estimates.items():
        assert estimate.value == sure.estimates[name].value and estimate.upper_bound > sure.estimates[name].upper_bound
    assert unsure.worst_case is not None and unsure.worst_case.flagged_open == len(IMAGINED)


def test_without_a_label_nothing_is_made_up(run: Path) -> None:
    result, _ = Person(run, 10, 5).work(["q"])
    worst = result.estimates["labelled.worst_case.prompt"]
    assert set(result.estimates) == {"labelled.worst_case.prompt"}
    assert (worst.value, worst.low) == (0.0, 0.0) and worst.upper_bound > 0.8
    assert set(result.not_estimated) == {"labelled.mean.all", "labelled.retain.mean"}


@pytest.mark.parametrize("stop", range(1, 60, 7))
def test_stopping_anywhere_leaves_limits_that_hold_the_truth(run: Path, stop: int) -> None:
    person = Person(run, 20, 6)
    result, _ = person.work(person.keys(stop))
    truth = _truth("forget")
    worst = result.estimates["labelled.worst_case.prompt"]
    assert worst.low <= sum(map(any, truth.values())) / N_FORGET <= worst.high
    if "labelled.mean.all" in result.estimates:
        mean = result.estimates["labelled.mean.all"]
        assert mean.low <= sum(sum(t) / 3 for t in truth.values()) / N_FORGET <= mean.high


def test_empty_answers_need_nobody(run: Path) -> None:
    plan = Person(run, 1000, 1000).plan()
    assert all(answer.text.strip() for answer in plan.todo({}))
    assert "no_leak" in plan.known.values()


def test_sampling_errs_on_neither_side(run: Path) -> None:
    """The mean of the estimates over many draws of the sample is the truth: the design is unbiased.

    Draws are made by renaming the run, which is what they depend on.
    """
    report = load_report(run)
    facts = [fact for _, fact in numbered_lines(run / "facts.jsonl", Fact)]
    probes = [probe for _, probe in numbered_lines(run / "probes.jsonl", Probe)]
    rulings = [ruling for _, ruling in numbered_lines(run / "rulings.jsonl", Ruling)]
    responses = {(r.probe_id, r.sample): r for _, r in numbered_lines(run / "responses.jsonl", Response)}
    cells = planned_cells(probes, rulings)
    worst, means = [], []
    for number in range(200):
        named = msgspec.structs.replace(report, run=f"run{number}")
        plan = draw_plan(named, facts, cells, responses, probes, 12, 0)
        labels: dict[str, Mark] = {}
        while open_ := [a for a in plan.todo(labels) if a.key not in labels]:
            labels |= {a.key: _oracle(a.text, a.answer) for a in open_}
        result = label_result(plan, labels)
        assert result.finished
        worst.append(result.estimates["labelled.worst_case.prompt"].value)
        means.append(result.estimates["labelled.mean.all"].value)
        low, high = (getattr(result.estimates["labelled.worst_case.prompt"], side) for side in ("low", "high"))
        truth = _truth("forget")
        assert low <= sum(map(any, truth.values())) / N_FORGET <= high
    assert len(set(worst)) > 1
    assert sum(worst) / 200 == pytest.approx(sum(any(t) for t in truth.values()) / N_FORGET, abs=0.006)
    assert sum(means) / 200 == pytest.approx(sum(sum(t) / 3 for t in truth.values()) / N_FORGET, abs=0.006)


def test_what_a_model_says_cannot_move_the_terminal() -> None:
    assert safe("a\x1b[2Jb\u202ec\u200bd\r\ne\tf\ud83d\x00") == "a\\x1b[2Jb\\u202ec\\u200bd\ne    f\\ud83d\\x00"
    assert safe("naïve — 日本 ½ 👍") == "naïve — 日本 ½ 👍"


def _no_run(run: Path) -> Path:
    return run.parent / "nowhere"


def _no_answers(run: Path) -> Path:
    (run / "responses.jsonl").unlink()
    return run


def _cut_answers(run: Path) -> Path:
    path = run / "responses.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    return run


def _broken_labels(run: Path) -> Path:
    (run / "labels.jsonl").write_text('{"claim_key": "a", "label": "perhaps", "at": ""}\n{}\n')
    return run


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_run, "report"),
        (_no_answers, "responses.jsonl missing"),
        (_cut_answers, "responses.jsonl, line"),
        (_broken_labels, "labels.jsonl, line 1"),
    ],
)
def test_what_cannot_be_used_is_one_message(run: Path, spoil: Callable[[Path], Path], said: str) -> None:
    done = CliRunner().invoke(app, ["judges", "label", str(spoil(run))], input="q\n")
    assert isinstance(done.exception, RunFolderError) and done.exception.exit_code == 2 and said in str(done.exception)
    assert done.exception.hint


@pytest.mark.parametrize("name", ["facts", "probes", "responses", "rulings"])
@pytest.mark.parametrize("change", ["line left out", "word changed"])
def test_only_the_files_that_the_report_speaks_of_are_labelled(run: Path, name: str, change: str) -> None:
    path = run / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if change == "line left out":
        del lines[3]
    else:
        words = {"rulings": ('"label":"leak"', '"label":"no_leak"'), "responses": ("by original", "by w01")}
        old, new = words.get(name, ("2", "3"))
        at = next(n for n, line in enumerate(lines) if old in line)
        lines[at] = lines[at].replace(old, new)
    path.write_text("".join(lines), encoding="utf-8")
    done = CliRunner().invoke(app, ["judges", "label", str(run)], input="q\n")
    assert isinstance(done.exception, RunFolderError)
    assert f"{name}.jsonl" in str(done.exception) and done.exception.hint


def test_a_label_that_was_cut_off_in_writing_is_asked_for_again(run: Path) -> None:
    Person(run, 5).work(["n", "n", "q"])
    with (run / "labels.jsonl").open("ab") as file:
        file.write(b'{"claim_key": "abc", "la')
    assert len(read_labels(run)) == 2
    result, _ = Person(run, 5).work(["n", "q"])
    assert result.labelled == 3
    with pytest.raises(RunFolderError, match="line 3"):  # the broken line is no longer the last, and is told
        read_labels(run)


def test_the_end_is_printed_in_words(run: Path) -> None:
    person = Person(run, 8, 4)
    done = CliRunner().invoke(
        app,
        ["judges", "label", str(run), "--sample", "8", "--retain-sample", "4"],
        input="\n".join(person.keys()),
        env={"COLUMNS": "120"},
    )
    assert done.exit_code == 0
    for words in ("worst_case.prompt", "by your labels", "confirmed", "refuted", "at most", "labelled.json"):
        assert words in done.stdout
    assert "not finished" not in done.stdout
