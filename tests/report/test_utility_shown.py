"""What forgetting cost in the terminal, on the page and in one table: the records' numbers, or the reason for none."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from audit.comparing.latex import _split as latex_split
from audit.comparing.words import limits_text
from audit.report.html import render, write_html
from audit.report.model import Report
from audit.report.read import load_report
from audit.report.seal import sealed
from audit.report.terminal import print_report, rough, short
from audit.report.utility_lines import Line, lines_of
from audit.report.utility_terminal import print_columns, print_utility, utility_markdown
from audit.report.utility_view import UtilityView, build_utility
from audit.report.utility_words import Cell, cell_text, change_text, signed
from audit.utility.records import TextQuality, UtilityReport
from tests.report.test_html import Page, rendered
from tests.report.utility_records import (
    CANDIDATE_PAIRS,
    HOSTILE,
    SUBJECTS,
    costed,
    full_utility,
    rates,
    win_estimate,
    win_rate,
)

WHY = "the judges prefer the base's own reply in 24 of 50 pairs only: it does not follow instructions"
HELD = {
    "win_rate.raw": WHY,
    "win_rate.length_controlled": WHY,
    "context.stated": "not informative: the base answers 2 of 40 so",
    "salted.refused": "the base refuses harmless instructions itself",
    "lm_eval.mmlu.acc": "the base is at chance",
    "retain.lost": "the base is not seen to know any of the retained facts",
    "degeneration.refusal": "the base refuses half of them",
    "holes.lost@group=near": "the base answers none of 57 new questions consistently",
}


@pytest.fixture(scope="module")
def plain(run: Path) -> Report:
    return load_report(run)


@pytest.fixture(scope="module")
def report(plain: Report) -> Report:
    return costed(plain)


@pytest.fixture(scope="module")
def withheld(plain: Report) -> Report:
    return costed(plain, full_utility(withheld=HELD, rate=rates(informative=False)))


def viewed(report: Report) -> UtilityView:
    view = build_utility(report)
    assert view is not None
    return view


def block(report: Report, width: int = 80) -> str:
    out = io.StringIO()
    print_utility(viewed(report), Console(file=out, width=width, highlight=False))
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def section(report: Report, run: Path) -> Page:
    html = render(report, run, ["candidate"])
    return Page(html.split('<section id="utility">')[1].split("</section>")[0])


def line_of(report: Report, name: str, title: str = "") -> Line:
    return next(line for line in lines_of(report) if line.name == name and title in line.title)


def row(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(title))


# ------------------------------------------------------------------------------------------------------------ lines


def test_lines_hold_the_numbers_of_the_records(report: Report) -> None:
    utility = report.utility
    assert isinstance(utility, UtilityReport)
    tiers = {tier.tier: tier for tier in utility.retained["candidate"].tiers}
    neighbour = line_of(report, "retain.mean@tier=neighbour")
    estimate = report.subjects["candidate"].estimates["retain.mean@tier=neighbour"]
    assert (neighbour.cells["candidate"].value, neighbour.cells["candidate"].low) == (estimate.value, estimate.low)
    drop = tiers["neighbour"].drop
    assert drop is not None and drop.value > 0
    change = neighbour.changes["candidate"]
    assert (change.value, change.low, change.high) == (-drop.value, -drop.high, -drop.low)
    lost = line_of(report, "retain.lost").cells["candidate"]
    assert (lost.count, lost.of, lost.more) == (tiers[""].lost, tiers[""].knew, tiers[""].open) == (14, 96, 2)
    refused = line_of(report, "retain.lost_refused").cells["candidate"]
    assert (refused.count, refused.of) == (7, 14)
    stated = line_of(report, "context.stated")
    assert stated.cells["base"].value == 38 / 40 and stated.cells["candidate"].value == 11 / 40
    assert stated.cells["candidate"].more == pytest.approx(1 / 40)
    raw = line_of(report, "win_rate.raw").cells["candidate"]
    assert raw.value == pytest.approx(
        (CANDIDATE_PAIRS.count("w") + (CANDIDATE_PAIRS.count("t") + CANDIDATE_PAIRS.count("=")) / 2)
        / (len(CANDIDATE_PAIRS) - CANDIDATE_PAIRS.count("u"))
    )
    rate = utility.win_rate.rates[0] if utility.win_rate else None
    assert rate is not None and rate.raw is not None
    assert raw.value is not None and raw.more == pytest.approx(rate.raw.upper_bound - raw.value) and raw.more > 0.04
    near = line_of(report, "holes.lost@group=near")
    assert near.cells["base"].count == 1 and near.cells["candidate"].count == 9
    marked = {line.title for line in lines_of(report) if any(cell.marked for cell in line.cells.values())}
    assert len(marked) == 3  # of open replies; the same titles stand for other prompts


def test_every_withheld_number_is_gone_with_its_change_and_its_reason_stays(withheld: Report) -> None:
    lines = {line.name: line for line in lines_of(withheld)}
    for name, why in HELD.items():
        cell = lines[name].cells["candidate"]
        assert cell.value is None and cell.count is None and not cell.shown
        assert cell.why_not == why.removeprefix("not informative: ")
        assert "candidate" not in lines[name].changes
    for name in ("retain.lost_refused", "salted.effect", "win_rate.raw"):
        assert lines[name].cells["candidate"].value is None, "falls with the number that it rests on"
    assert lines["win_rate.raw"].cells["never_knew"].why_not == WHY, "of all, where the judges tell nothing"
    assert lines["context.stated"].cells["base"].value == 38 / 40, "the reason itself is shown"


def test_no_pairs_at_equal_lengths_withhold_that_number_alone(plain: Report) -> None:
    report = costed(plain, full_utility(rate=rates(controlled=False)))
    assert line_of(report, "win_rate.raw").cells["candidate"].shown
    cell = line_of(report, "win_rate.length_controlled").cells["candidate"]
    assert cell.why_not == "all differences of length have one sign" and cell.value is None
    assert line_of(report, "win_rate.length_controlled").cells["never_knew"].shown


def test_numbers_as_texts() -> None:
    assert [signed(x) for x in (3.4, -12.0, 0.2, -0.3)] == ["+3", "−12", "0", "0"]
    assert cell_text(Cell(value=0.999), "share") == "99" and cell_text(Cell(value=0.001), "share") == "1"
    assert cell_text(Cell(value=0.0), "share") == "0" and cell_text(None, "share") == "–"
    assert cell_text(Cell(value=0.5, why_not="x"), "share") == "not informative"
    assert cell_text(Cell(value=0.5, count=3, of=6, more=1), "count") == "3/6+1?"
    assert cell_text(Cell(), "count") == "–" and change_text(None, "share") == ""


# --------------------------------------------------------------------------------------------------------- terminal


def test_terminal_says_what_the_lines_say(report: Report) -> None:
    text = block(report)
    assert re.search(r"neighbour +96 +64 +−32 \[−\d+, −\d+\] +92", text)
    assert re.search(r"known facts lost +– +14/96\+2\? +0/96", text)
    assert re.search(r"stated, then given +95 +28\+3\? +−68 \[", text)
    assert re.search(r"near questions lost +1/22 +9/22\+1\? +\+36 \[", text)
    said = words(text)
    assert "of the 14 lost facts 7 are refused" in said and "2 more may be lost" in said
    assert "39 ruled otherwise in the other order (ties); 14 undecided; refuses 30.6%, the reference 0.7%" in said
    assert "refusals (open instructions) 2 → 30%" in said and "2- and 3-gram entropy (open instructions) 6.91" in said
    assert "lm-eval: 1 more task on the page" in said
    assert "beside what was lost: 5 facts that it answers and the base does not" in said
    for sentence in viewed(report).how:
        assert sentence in said


def test_refusals_of_what_was_to_go_are_no_damage(report: Report) -> None:
    forget = [line for line in lines_of(report) if line.note == "questions on facts to forget"]
    by_name = {line.name: line.cells["candidate"] for line in forget}
    assert by_name["degeneration.entropy@prompts=forget"].marked
    assert (
        not by_name["degeneration.refusal@prompts=forget"].marked
        and by_name["degeneration.refusal@prompts=forget"].shown
    )


def with_texts(plain: Report, **changed: dict[str, TextQuality]) -> Report:
    """A report whose replies to some kinds of prompts are other ones, by kind and subject."""
    full = full_utility()
    texts = {
        subject: tuple(changed.get(quality.prompts, {}).get(subject, quality) for quality in each)
        for subject, each in full.texts.items()
    }
    return costed(plain, replace(full, texts=texts))


def no_replies(failed: int) -> TextQuality:
    return TextQuality(prompts="open", n=0, failed=failed, measures=())


def test_without_replies_nothing_is_said_to_be_in_range(plain: Report, run: Path) -> None:
    nothing = dict.fromkeys(SUBJECTS, no_replies(4))
    report = with_texts(plain, open=nothing)
    said = words(block(report))
    assert "replies to open instructions: nothing can be said of their range: no reply is there (4 of 4 failed)" in said
    retained = next(texts for texts in viewed(report).texts if texts.title == "retained questions")
    assert {line.note for line in retained.lines} == {"retained questions"}
    html = render(report, run, ["candidate"]).split('id="texts">')[1].split("</section>")[0]
    html = html.split("</p>", 1)[1]
    of_open = Page(html.split("<details")[0]).text
    assert "candidate 0 replies, 4 failed" in of_open and "no reply is there" in of_open
    assert "entropy" not in of_open and not re.search(r"\d%", of_open), "no numbers of other prompts"
    for kind in ("Retained questions", "Questions on facts to forget"):
        assert kind in Page(html).text


def test_the_line_on_ranges_names_the_prompts_that_it_speaks_of(plain: Report) -> None:
    full = full_utility()

    def changed(kind: str, subject: str, **values: float) -> TextQuality:
        quality = next(q for q in full.texts[subject] if q.prompts == kind)
        measures = tuple(replace(m, value=values.get(m.name, m.value), out_of_range=False) for m in quality.measures)
        return replace(quality, failed=0, measures=measures)

    calm = {k: {"candidate": changed(k, "candidate")} for k in ("open", "retain", "forget")}
    said = words(block(with_texts(plain, **calm)))
    assert "replies to open instructions, retained questions and questions on facts to forget: no measure" in said
    calm["open"]["base"] = changed("open", "base", words=2.1)
    said = words(block(with_texts(plain, **calm)))
    assert "replies to retained questions and questions on facts to forget: no measure is out" in said
    assert "replies to open instructions: nothing can be said of their range: the base's own replies are 2.1 " in said
    calm["retain"]["base"] = changed("retain", "base", identical=0.8)
    assert "the base's own replies are 80% stock replies" in words(block(with_texts(plain, **calm)))
    calm["open"]["base"] = no_replies(150)
    assert "there is no reply of a base to compare with" in words(block(with_texts(plain, **calm)))
    calm["forget"]["candidate"] = replace(calm["forget"]["candidate"], failed=7)
    said = words(block(with_texts(plain, **calm)))
    assert "replies to questions on facts to forget: 7 of 407 failed and are in no comparison" in said


def test_a_number_between_its_bounds_shows_both(plain: Report, run: Path) -> None:
    mostly_open = "w" * 12 + "l" + "u" * 47
    report = costed(plain, full_utility(rate=replace(rates(), rates=(win_rate("candidate", mostly_open),))))
    cell = line_of(report, "win_rate.raw").cells["candidate"]
    assert cell_text(cell, "share") == "92 (20–99?)"
    assert re.search(r"win rate, raw +– +92 \(20–99\?\)", block(report))
    assert "(20.0–98.3%?)" in section(report, run).text
    rate = win_estimate("win_rate.raw", mostly_open)
    assert rough(rate).endswith("] (20–99?)") and short(rate).endswith("] (20.0–98.3?)")
    assert limits_text(rate).endswith("] (20.0–98.3?)") and "(20--99?)" in " ".join(latex_split(rate))


def test_limits_of_a_difference_stand_in_the_table(report: Report) -> None:
    line = line_of(report, "salted.effect")
    lines = block(report).splitlines()
    at = next(i for i, text in enumerate(lines) if text.startswith("salted: refusals added"))
    for cell in line.cells.values():
        number, _, limits = cell_text(cell, "points").partition(" ")
        assert number in lines[at] and limits in lines[at + 1]


def test_replies_are_shown_in_one_table(report: Report, plain: Report, run: Path) -> None:
    shown = Page(render(report, run, ["candidate"])).text
    assert "How the replies look" not in shown and "How the replies read" in shown
    bare = Page(render(replace(report, utility=None), run, ["candidate"])).text
    assert "How the replies look" in bare and "How the replies read" not in bare
    part = replace(full_utility(), texts={"base": full_utility().texts["base"]})
    both = Page(render(costed(plain, part), run, ["candidate"])).text
    assert "How the replies look" in both and "How the replies read" in both


@pytest.mark.parametrize("width", [50, 80, 132])
def test_terminal_keeps_its_width_and_cuts_no_number(report: Report, withheld: Report, width: int) -> None:
    for each in (report, withheld):
        text = block(each, width)
        assert max(map(len, text.splitlines())) <= width and "…" not in text
    text = block(report, width)
    for number in ("14/96+2?", "28+3?", "9/22+1?", "−32 [−52, −16]"):
        assert number in text
    if width >= 80:
        table = text.split("What forgetting cost")[1].split("retained questions refused")[0]
        assert len([line for line in table.splitlines() if line.strip()]) <= 17


@pytest.mark.parametrize("width", [50, 80])
def test_terminal_gives_the_reason_in_place_of_a_number(withheld: Report, width: int) -> None:
    text = words(block(withheld, width))
    for name, why in HELD.items():
        assert name in text
        assert why.removeprefix("not informative: ") in text
    assert "not informative: not informative" not in text
    shown = block(withheld, 80)
    for title in ("known facts lost", "stated, then given", "win rate, raw", "mmlu, acc", "near questions lost"):
        assert "not informative" in row(shown, title), title
    assert not re.search(r"\d", row(shown, "win rate, raw").replace("not informative", ""))


def test_a_run_without_utility_says_nothing_of_it(plain: Report, run: Path) -> None:
    bare = replace(plain, utility=None)
    assert build_utility(bare) is None and lines_of(bare) == []
    out = io.StringIO()
    print_report(bare, Path("run"), None, Console(file=out, width=80))
    assert "What forgetting cost" not in out.getvalue()
    html = render(bare, run, ["candidate"])
    assert 'id="utility"' not in html and "what forgetting cost */" not in html


def test_without_a_base_nothing_is_a_change(plain: Report) -> None:
    full = full_utility()
    alone = replace(
        full, reference="", retained={}, context={"candidate": tuple(replace(u, drop=None, usable=None, kept=None)
                                                                      for u in full.context["candidate"])},
        texts={}, salted=(), win_rate=None, harness=(), holes=None, withheld={"retain.lost": "no base"},
    )  # fmt: skip
    subjects = {"candidate": plain.subjects["candidate"]}
    text = block(replace(plain, utility=alone, subjects=subjects))
    assert "change" not in text and re.search(r"stated, then given +28\+3\?", text)
    assert "not informative: retain.lost: no base" in words(text)


# ------------------------------------------------------------------------------------------------------------- page


def test_page_has_every_number_and_list(report: Report, run: Path) -> None:
    page = section(report, run)
    utility = report.utility
    assert utility is not None
    assert page.open == []
    for lost in utility.retained["candidate"].lost:
        assert words(lost.question.replace("\u202e", "‹U+202E›")) in page.text
    assert "Knowledge holes: 14 facts that the base knew and the candidate lost" in page.text
    assert "14 of 96 +2?" in page.text and "64.0%" in page.text and "−32.0 −52.0 to −16.0" in page.text
    assert "40 won, 41 lost of 147" in page.text and "39 26.5%" in page.text
    assert "47 of 50 ruled for its own, 2 ties, 0 for the other, 1 undecided" in page.text
    assert "30.0% !" in page.text and "5.20 !" in page.text
    assert "timeout 3" in page.text and "licence CC0" in page.text
    for question in utility.holes.questions if utility.holes else ():
        assert words(question.question.replace("\u202e", "‹U+202E›")) in page.text
    assert "mmlu_stem" in page.text and "ladder, kettle, orchard" in page.text
    for sentence in utility.how:
        assert sentence[1:] in page.text
    assert "forgotten" not in page.text.lower().replace("about a forgotten fact", "")


def test_page_gives_the_reason_in_place_of_a_number(withheld: Report, run: Path) -> None:
    page = section(withheld, run)
    for name, why in HELD.items():
        assert name in page.text and why.removeprefix("not informative: ") in page.text
    assert "not informative: not informative" not in page.text.lower()
    assert "40 won" not in page.text and "45.2%" not in page.text, "no pair is counted that nobody can judge"
    assert "24 of 50 ruled for its own" in page.text, "the reason itself"
    assert "−67.5" not in page.text and "11 of 38" not in page.text
    whole = Page(render(withheld, run, ["candidate"])).text
    listed = whole.split("numbers of the candidate, with their limits and methods")[1]
    for name in set(HELD) & set(withheld.estimates):
        assert f"{name} not informative:" in listed, "the list of all estimates says so as well"
    subjects = whole.split("Subjects side by side")[1].split("How the replies read")[0]
    assert "win_rate" not in subjects and "context." not in subjects


def test_texts_of_models_stay_texts(report: Report, run: Path) -> None:
    html = render(report, run, ["candidate"])
    part = html.split('<section id="utility">')[1].split("</section>")[0]
    assert "<script" not in part and "\u202e" not in html
    page = Page(part)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in page.elements if "style" in attributes]
    assert page.text.count(words(HOSTILE.replace("\u202e", "‹U+202E›"))) >= 4
    out = io.StringIO()
    loud = replace(full_utility(), how=(f"[bold]{HOSTILE}[/bold] \x1b[31m",))
    print_utility(viewed(replace(report, utility=loud)), Console(file=out, width=80, highlight=False))
    assert "[bold]" in out.getvalue() and "\x1b[31m" not in out.getvalue() and "\u202e" not in out.getvalue()


@pytest.mark.browser
def test_in_a_browser_the_section_does_nothing(report: Report, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render(report, run, ["candidate"]), encoding="utf-8")
    dom = rendered(path, tmp_path)
    assert '<section id="utility">' in dom and dom.count("<script>") == 1


def test_a_sealed_report_is_read_back_with_its_utility(report: Report, run: Path, tmp_path: Path) -> None:
    import msgspec

    data = sealed(json.loads(msgspec.json.encode(report)))
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    assert load_report(tmp_path).utility == report.utility
    assert "What forgetting cost" in write_html(tmp_path).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- one table of runs


def columns(report: Report, withheld: Report) -> dict[str, tuple[Report, str]]:
    return {
        "base": (report, "base"),
        "never knew": (report, "never_knew"),
        "jensun": (report, "candidate"),
        "wr|eck": (withheld, "candidate"),
    }


@pytest.mark.parametrize("width", [80, 160])
def test_table_of_several_runs_cuts_no_number(report: Report, withheld: Report, width: int) -> None:
    out = io.StringIO()
    print_columns(columns(report, withheld), Console(file=out, width=width, highlight=False))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("14/96+2?") == 1 and text.count("−32 [−52, −16]") == 2
    assert text.count("not informative") >= len(HELD)
    for head in ("base", "never knew", "jensun", "wr|eck"):
        assert head in text


def test_markdown_of_several_runs_is_a_table(report: Report, withheld: Report) -> None:
    text = utility_markdown(columns(report, withheld))
    lines = text.splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    lost = next(line for line in lines if "known retained" in line or "facts lost" in line)
    assert "14/96+2?" in lost and lost.rstrip("| ").endswith("not informative")
    stated = next(line for line in lines if line.startswith("| stated in the prompt"))
    assert "28+3? (−68" in stated and stated.rstrip("| ").endswith("not informative")


def test_table_names_a_subject_that_is_not_there(report: Report) -> None:
    with pytest.raises(ValueError, match="its report has no subject attacker"):
        utility_markdown({"x": (report, "attacker")})
    with pytest.raises(ValueError, match="no columns"):
        utility_markdown({})
