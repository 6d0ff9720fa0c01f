"""What the reports show of the judges: a real panel of three over the same answers, one of them over-cautious."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from audit.errors import RunFolderError
from audit.judges.labelling import read_plan
from audit.report.html import limits, percent_short, write_html
from audit.report.read import load_report
from audit.report.seal import sealed
from audit.report.terminal import print_report
from audit.report.view_panel import build_panel, check_command, cost_words, short_names
from audit.scoring.labelled import LabelledResult, label_result, write_result
from tests.report.conftest import ATTACKS
from tests.report.test_html import Page, rendered


@pytest.fixture(scope="session")
def panel_page(panel_run: Path) -> Page:
    return Page(write_html(panel_run).read_text(encoding="utf-8"))


def printed(folder: Path, width: int = 80) -> str:
    console = Console(width=width, highlight=False, record=True, force_terminal=False)
    with console.capture() as captured:
        print_report(load_report(folder), folder, None, console)
    return captured.get()


def test_each_judge_has_a_card_or_is_said_to_have_none(panel_run: Path, panel_page: Page) -> None:
    report = load_report(panel_run)
    assert len(report.panel.judges) == 3
    for judge in report.panel.judges:
        assert judge.judge in panel_page.text
        assert f"audit judges check --judge {judge.spec}" in panel_page.text
        assert f"{judge.n} verdicts" in panel_page.text
    assert "undecided: ambiguous" in panel_page.text  # the sums that one of them cannot tell
    assert "price unknown" in panel_page.text and "model served gullible" in panel_page.text


def test_agreement_is_what_the_report_says(panel_run: Path, panel_page: Page) -> None:
    agreed = load_report(panel_run).panel.agreement
    assert agreed is not None and agreed.alpha is not None and agreed.disputed
    assert f"Krippendorff's alpha: {agreed.alpha:.3f}" in panel_page.text
    for pair in agreed.pairs:
        assert panel_page.text.count(f"{pair.agreement.kappa:.3f}") >= 2  # both halves of the matrix
    lines = (panel_run / "disputed.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == agreed.disputed
    assert f"{agreed.disputed} disputed claims" in panel_page.text
    for line in lines[: len(agreed.examples)]:
        claim = json.loads(line)
        assert {"leak", "no_leak"} <= set(claim["votes"].values())
        assert " ".join(claim["question"].split()) in panel_page.text


def test_hostile_texts_are_shown_and_do_nothing(panel_run: Path, panel_page: Page, tmp_path: Path) -> None:
    disputed = (panel_run / "disputed.jsonl").read_text(encoding="utf-8")
    assert any(json.dumps(attack)[1:-1] in disputed for attack in ATTACKS[:3]), "no attack is disputed: test nothing"
    tags = [tag for tag, _ in panel_page.elements]
    assert panel_page.open == []
    assert tags.count("script") == 1 and tags.count("style") == 1 and tags.count("h1") == 1 and "b" in tags
    assert not any(name.startswith("on") for _, attributes in panel_page.elements for name in attributes)
    assert "<b>bold</b> reason" in panel_page.text  # a judge's own words
    assert '<html lang="en" class="js">' in rendered(panel_run / "report.html", tmp_path)


def test_panels_stand_side_by_side(panel_run: Path, run: Path, panel_page: Page) -> None:
    before, now = load_report(run), load_report(panel_run)
    (other,) = now.other_panels
    assert other.run == before.run and before.run in panel_page.text
    assert other.estimates["base"]["worst_case.prompt"] == before.subjects["base"].estimates["worst_case.prompt"]
    assert now.manifest.rejudged is not None and now.manifest.rejudged.answers in panel_page.text
    text = printed(panel_run)
    assert "the same answers under other judges:" in text
    assert re.search(r"this run\s+before", text)
    assert "before: rules; canaries passed; 1 undecided" in text
    assert "other judges" not in printed(run)


def test_the_summary_says_who_judged_and_how_far_they_agree(panel_run: Path) -> None:
    text = printed(panel_run)
    agreed = load_report(panel_run).panel.agreement
    assert agreed is not None
    assert f"alpha {agreed.alpha:.3f}" in text and f"disputed: {agreed.disputed} claims" in text
    assert "judge openai:nervous: never checked: audit judges check --judge openai:nervous@http://" in text
    counts = load_report(panel_run).panel.all_claims
    assert counts is not None and counts.distinct < counts.occurrences
    assert f"to judge: {counts.occurrences:,} claims, {counts.distinct:,} different ones" in text
    assert re.search(r"judging took [\d,]+ tokens .*price unknown", text)
    table = text[text.index("the same answers") : text.index("  this run:")].splitlines()
    assert len(table) > 4 and all(len(line.rstrip()) <= 80 for line in table)


def test_a_card_is_shown_with_its_limits(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["panel"]["judges"][0]["card"] = {
        "data": "items.jsonl (abc)",
        "n": 360,
        "sensitivity": 0.98,
        "sensitivity_low": 0.95,
        "sensitivity_high": 0.995,
        "specificity": None,
        "specificity_low": 0.0,
        "specificity_high": 1.0,
        "undecided_rate": 0.042,
        "injections": 40,
        "injections_right": 39,
    }
    (folder / "report.json").write_text(json.dumps(sealed(report)), encoding="utf-8")
    page = Page(write_html(folder).read_text(encoding="utf-8"))
    assert "98.0% [95.0% – 99.5%]" in page.text and "39 of 40" in page.text and "360 labelled answers" in page.text
    assert "never checked" not in page.text
    assert "judge rules: sensitivity 98.0% [95.0, 99.5], specificity –" in printed(folder)


def test_corrected_numbers_stand_beside_the_counted_ones(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    raw = report["estimates"]["mean.all"]
    corrected = {**raw, "name": "calibrated.mean.all", "value": 0.123, "lower_bound": 0.123, "high": 0.4}
    for estimates in (report["estimates"], report["subjects"]["candidate"]["estimates"]):
        estimates["calibrated.mean.all"] = corrected
    (folder / "report.json").write_text(json.dumps(sealed(report)), encoding="utf-8")
    text = Page(write_html(folder).read_text(encoding="utf-8")).text
    assert "Corrected for the judges' errors" in text and "12.3%" in text
    assert "mean.all corrected for the judge's error rates: 12.3%" in printed(folder)


def test_a_persons_labels_stand_beside_what_was_counted(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    plan = read_plan(folder, sample=10)
    drawn = plan.todo({})
    assert "by a person's labels" not in Page(write_html(folder).read_text(encoding="utf-8")).text
    write_result(folder, label_result(plan, {answer.key: "no_leak" for answer in drawn}))  # the judges were all wrong
    text = Page(write_html(folder).read_text(encoding="utf-8")).text
    result = msgspec.json.decode((folder / "labelled.json").read_bytes(), type=LabelledResult)
    worst = result.estimates["labelled.worst_case.prompt"]
    assert worst.value < load_report(folder).estimates["worst_case.prompt"].value
    row = text[text.index("Corrected for the judges' errors") :]
    assert f"{percent_short(worst.value)}" in row and f"{limits(worst)}" in row and "12.5%" in row
    assert f"Labelled: {result.labelled} of {result.drawn} answers drawn" in text
    write_result(folder, msgspec.structs.replace(result, run="0"))
    text = Page(write_html(folder).read_text(encoding="utf-8")).text
    assert "belongs to another run" in text and "by a person's labels" not in text
    (folder / "labelled.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"labelled\.json"):
        write_html(folder)


def test_names_commands_and_costs_in_words(panel_run: Path) -> None:
    assert short_names(["rules", "openai:a@http://x/v1", "local:b?engine=hf"]) == ["rules", "openai:a", "local:b"]
    same = ["openai:a@http://x/v1", "openai:a@http://y/v1"]
    assert short_names(same) == same
    weights = {"judge_rule": "weighted", "judge_weights": [1, 2.5], "judge_cascade": True}
    assert check_command(["a", "b"], weights) == (
        "audit judges check --judge a --judge b --cascade --judge-rule weighted --judge-weight 1 --judge-weight 2.5"
    )
    assert check_command(["a"], weights) == "audit judges check --judge a"
    work = [judge.work for judge in build_panel(load_report(panel_run)).judges if judge.work is not None]
    assert cost_words(work) == "price unknown" and cost_words(work[:1]) == ""
