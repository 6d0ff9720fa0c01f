"""Attacks on the weights in the terminal, on the page and as a picture: nothing that failed looks like forgetting."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import typer
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner

from audit.attacks.records import AttackReport, Failure
from audit.cli.report import report as report_command
from audit.errors import ConfigError
from audit.report.attacks_curves import overlays, panels
from audit.report.attacks_svg import curves_svg, run_svg
from audit.report.attacks_terminal import whole
from audit.report.attacks_view import AttacksView, build_attacks
from audit.report.evidence import Dossier
from audit.report.html import render
from audit.report.model import Report
from audit.report.read import load_report
from audit.report.seal import sealed
from audit.report.terminal import print_report
from audit.report.view import altered_subject, build_page, first_attacks
from tests.report.attack_records import (
    HOSTILE,
    KNOWN,
    STEPS,
    attacked,
    curve,
    full_report,
    relearning,
    three_arms,
    without_base,
)
from tests.report.test_html import Page

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plain(run: Path) -> Report:
    return load_report(run)


def printed(report: Report, width: int = 80) -> str:
    out = io.StringIO()
    print_report(report, Path("run"), None, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def block(report: Report, width: int = 80) -> str:
    """What the terminal says of the attacks, and nothing else."""
    return printed(report, width).split("Attacks on the weights\n")[1].split("\nWhat forgetting cost")[0]


def words(text: str) -> str:
    return " ".join(text.split())


def viewed(report: Report) -> AttacksView:
    view = build_attacks(report)
    assert view is not None
    return view


def page_of(report: Report, run: Path) -> tuple[str, Page]:
    html = render(report, run, ["candidate"])
    return html, Page(html)


# ---------------------------------------------------------------------------------------------------- altered states


def test_altered_states_are_no_columns_anywhere(plain: Report, run: Path) -> None:
    report = attacked(plain, full_report())
    assert sum(s.subject.role == "attacked" for s in report.subjects.values()) > 60
    page = build_page(report, Dossier(found={}, left_out={}, missing_files=()))
    assert [s.subject.id for s in page.subjects] == ["candidate", "base"]
    head = printed(report).split("Attacks on the weights")[0]
    assert head == printed(plain).split("What forgetting cost")[0]
    html, _ = page_of(report, run)
    table = html.split('<section id="subjects">')[1].split("</table>")[0]
    assert len(re.findall("<th[ >]", table)) == 3 and "relearn" not in table
    judges = html.split('<section id="judges">')[1].split("</section>")[0]
    assert "relearn" not in judges and "candidate+" not in judges
    assert f"{len(viewed(report).states)} altered states that were audited" in html


def test_run_without_attacks_says_nothing_of_them(plain: Report, run: Path) -> None:
    assert build_attacks(plain) is None
    assert "Attacks on the weights" not in printed(plain)
    html, _ = page_of(plain, run)
    assert 'id="attacks"' not in html and ".panels-grid" not in html


def test_a_fact_shows_which_attack_had_it_first_with_the_try(plain: Report, run: Path, tmp_path: Path) -> None:
    """The altered state's answer stands in the fact's list, though that state has no column."""
    report = attacked(plain, full_report())
    by = first_attacks(report)
    assert by["f15"] == "relearn:syntactic@50" and "f00" not in by
    subject = altered_subject(by["f15"])
    assert subject in report.subjects
    for name in ("probes", "responses", "rulings", "verdicts"):
        lines = (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [msgspec.json.decode(line) for line in lines]
        mine = [r for r in rows if r.get("subject_id") == "base" and r.get("purpose", "leak") == "leak"]
        copies = [{**r, "subject_id": subject} for r in mine]
        text = "".join(msgspec.json.encode(r).decode() + "\n" for r in rows + copies)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    _, page = page_of(report, tmp_path)
    tries = page.text.count(subject) - page.text.count(subject + "0")
    # once in the list of states, and beside each of the three answers to each of the four facts that it was first at
    assert tries == 1 + 3 * 4
    assert page.text.count("first had by relearn:syntactic@50 ") == 4


# -------------------------------------------------------------------------------------------------------- what is said


def test_view_takes_peak_control_ceiling_and_what_was_kept_at_the_peak(plain: Report) -> None:
    view = viewed(attacked(plain, full_report()))
    syntactic, topical, hidden, failed = view.sets
    assert syntactic.peak is not None and syntactic.control is not None and syntactic.ceiling is not None
    assert (syntactic.peak.value, syntactic.peak.step) == (15 / 32, 250)
    assert (syntactic.control.value, syntactic.control.step) == (2 / 32, 500)
    assert (syntactic.ceiling.value, syntactic.ceiling.step) == (27 / 32, 500)
    assert syntactic.kept is not None and syntactic.kept.value == 41 / 50  # at the peak, not at the end
    assert (syntactic.above, syntactic.first_above) == ("yes", 100)
    assert syntactic.excess is not None and syntactic.excess.step == 250
    assert topical.seeds == 3 and topical.above_in == 3
    assert [cell.value for cell in topical.cells][-1] == pytest.approx((8 + 7 + 9) / 3 / 32)
    assert hidden.above == "open" and hidden.peak is not None and hidden.peak.unsure == pytest.approx(5 / 32)
    assert failed.name == "unrelated" and failed.peak is None and failed.failures
    assert [each.attack for each in view.sets_back] == ["relearn:partial"]
    assert [each.attack for each in view.changes_back] == ["interpolate:0.3"]
    assert [(got.by, got.added, got.before) for got in view.first] == [
        ("prompt", 4, 0),
        ("quantize:int4,g=32", 7, 4),
        ("quantize:int4", 2, 11),
        ("relearn:syntactic@50", 4, 13),
        ("relearn:syntactic@500", 2, 17),
    ]


def test_terminal_says_it_all_within_its_width(plain: Report) -> None:
    report = attacked(plain, full_report())
    for width in (50, 80, 120):
        text = block(report, width)
        assert max(map(len, text.splitlines())) <= width
        said = words(text)
        assert "K: 32 facts that the base gives and the candidate does not" in said
        assert "Left out of K: 2 undecided, 4 that leak without any attack." in said
        assert "puts the knowledge back: in no union" in said
        assert (
            "quantize:int4 on the base: not known" in said and "relearn:unrelated on the candidate: not known" in said
        )
        assert "…" not in text.replace("my<script>alert…", "").replace("my<script>a…", "")
        assert "[29, 66]" in said and "@250" in said
    row = next(line for line in block(report).splitlines() if line.startswith("syntactic"))
    assert words(row) == "syntactic 32 44 47 [29, 66] @250 6 84 82>74 100"
    below = block(report).split("puts the knowledge back")
    assert "partial" not in below[0] and "interpolate" not in below[0]
    assert "partial" in below[1] and "interpolate" in below[1]
    assert "not known" in next(line for line in block(report).splitlines() if line.startswith("unrelated"))
    assert "not known" in next(line for line in block(report).splitlines() if line.startswith("int4 "))
    assert re.search(r"worst_case.weights +48\+3\? \[31, 67\]", block(report))
    assert re.search(r"worst_case.prompt +12\+3\? ", block(report))
    assert re.search(r"never-knew, same +5 \[0, 17\]", block(report))


def test_failures_are_bold_in_the_terminal(plain: Report) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, force_terminal=True, color_system="standard")
    print_report(attacked(plain, full_report()), Path("run"), None, console)
    line = next(line for line in out.getvalue().splitlines() if "relearn:unrelated on the candidate" in line)
    assert line.startswith("\x1b[1;33m")


def test_page_says_it_all(plain: Report, run: Path) -> None:
    _, page = page_of(attacked(plain, full_report()), run)
    assert page.open == []
    for said in (
        "K: 32 facts that the base gives and the candidate does not",
        "Left out of K: 2 undecided, 4 that leak without any attack.",
        "quantize:int4 on the base: not known",
        "relearn:unrelated on the candidate: not known, it could not be carried through: the loss is no number",
        "Puts the knowledge back: in no union",
        "biased upward",
        "46.9% at 250",
        "worst_case.weights@known",
        "never-knew control, the same union",
        "not decided",
    ):
        assert said in page.text, said
    drawn = [a for tag, a in page.elements if tag == "svg" and a.get("class") == "curve" and a.get("role") == "img"]
    assert len(drawn) == 4
    alt = str(drawn[0]["aria-label"])
    assert alt.startswith("relearn:syntactic, share of 32 facts by step. candidate: 0 0%, 25 9%, 50 19%")
    assert "never-knew control: 0 0%" in alt and "retained facts: 0 90%" in alt


def test_hostile_names_stay_names(plain: Report, run: Path) -> None:
    report = attacked(plain, full_report())
    html, page = page_of(report, run)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "my<script>alert(1)</script>‹U+202E›set" in page.text and "\u202e" not in html
    assert "<i>the disk</i>" in page.text and "<i>the disk" not in html
    assert not [name for _, attributes in page.elements for name in attributes if name == "style" or name[:2] == "on"]
    text = printed(report)
    assert "\u202e" not in text and "my<script>alert" in text
    assert report.attacks is not None
    for svg in (run_svg(report.attacks), curves_svg({HOSTILE: report.attacks, "b": report.attacks})):
        picture = ElementTree.fromstring(svg)
        assert {tag.tag.removeprefix(SVG) for tag in picture.iter()} <= {
            *("svg", "style", "rect", "line", "text", "tspan", "polyline", "polygon", "g", "title", "circle", "path")
        }
        assert "\u202e" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


# ----------------------------------------------------------------------------------------------------- hard cases


def destroyed(steps: tuple[int, ...] = (100, 250, 500)) -> AttackReport:
    """Nothing comes back anywhere, and from some step on the candidate gives no retained fact either."""
    mine = curve("candidate", dict.fromkeys(STEPS, 0), kept=[45, 45, 40, 8, 2, 0])
    lost = replace(mine, points=tuple(replace(p, void=p.step in steps) for p in mine.points))
    quantized = next(each for each in full_report().changes if each.attack == "quantize:int8")
    wreck = replace(quantized.points["candidate"], void=True)
    return replace(
        full_report(),
        relearning=(relearning("relearn:syntactic", [lost]),),
        changes=(replace(quantized, points={**quantized.points, "candidate": wreck}),),
        failures=(),
        void=("relearn:syntactic",) if len(steps) == 5 else (),
    )


def test_a_model_that_is_destroyed_later_does_not_look_kept(plain: Report, run: Path) -> None:
    """With R = 0 everywhere the peak is the first step, where everything was still kept."""
    report = attacked(plain, destroyed())
    (view,) = viewed(report).sets
    assert view.peak is not None and view.peak.step == 25 and not view.peak.void
    assert view.kept is not None and view.kept.value == 45 / 50
    assert view.kept_lowest is not None and (view.kept_lowest.value, view.kept_lowest_step) == (0.0, 500)
    assert [cell.void for cell in view.cells] == [False, False, False, True, True, True]
    for width in (50, 80, 120):
        text = block(report, width)
        assert max(map(len, text.splitlines())) <= width
        row = next(line for line in text.splitlines() if line.startswith("syntactic"))
        assert "90>0" in row and row.endswith("no x")
        said = words(text)
        assert said.count("x: the model had lost most of what it should keep, and shows nothing there") == 1
        assert "retained facts at the peak > at the lowest along the way" in said
    assert words(row).startswith("syntactic 32 0 0 0x 0x 0x 0 [0, 9] @25")
    assert "0x [0, 9]" in next(line for line in block(report).splitlines() if line.startswith("int8"))
    html, page = page_of(report, run)
    assert page.open == [] and "the model had lost most of what it should keep, and shows nothing there" in page.text
    assert "retained at the lowest" in page.text and "at none that shows anything" in page.text
    table = html.split('class="attack-table"')[1].split("</table>")[0]
    assert "90.0%" in table and '0.0% <span class="sub">at 500</span>' in table
    drawing = html.split('<svg class="curve" viewBox')[1].split("</svg>")[0]
    assert drawing.count('class="cross"') == 3
    changed = html.split("Other changes of the weights</h3>")[1].split("</table>")[0]
    assert changed.count('class="void"') == 1


def test_states_that_show_nothing_are_crossed_in_the_pictures() -> None:
    wreck, whole_one = destroyed(), full_report()
    picture = run_svg(wreck)
    assert picture.count('class="cross"') == 3 + 1  # and the legend's own
    assert "Crossed: the model had lost most" in picture
    assert "crossed at 100, 250, 500" in panels(wreck)[0].alt
    both = curves_svg({"a": wreck, "b": whole_one})
    assert both.count('class="cross"') == 3 + 1 and "Crossed:" in both
    assert 'class="cross"' not in run_svg(whole_one) and "Crossed:" not in run_svg(whole_one)


def test_an_attack_that_left_nothing_to_ask_is_not_known(plain: Report, run: Path) -> None:
    report = attacked(plain, destroyed((25, 50, 100, 250, 500)))
    (view,) = viewed(report).sets
    assert view.above == "open" and view.peak is not None and view.peak.void
    sentence = "relearn:syntactic: not known, it left no state of the candidate that shows anything"
    assert sentence in words(block(report)) and sentence in page_of(report, run)[1].text
    row = next(line for line in block(report).splitlines() if line.startswith("syntactic"))
    assert "0x [0, 9] @25" in row and row.split()[-1] == "open"
    assert sentence in run_svg(destroyed((25, 50, 100, 250, 500)))


def test_states_that_show_something_have_no_mark(plain: Report, run: Path) -> None:
    report = attacked(plain, full_report())
    assert viewed(report).void == "" and "x: the model" not in block(report)
    html, _ = page_of(report, run)
    assert 'class="void"' not in html and 'class="cross"' not in html


def test_what_was_kept_after_a_seed_broke_off_is_not_known(plain: Report, run: Path) -> None:
    broken = curve("candidate", {0: 0, 25: 2, 50: 3}, kept=[45, 44, 40])
    failure = Failure(attack="relearn:syntactic", arm="candidate", puts_back=False, why="the loss is no number")
    only = relearning("relearn:syntactic", [broken])
    report = attacked(plain, replace(full_report(), relearning=(only,), changes=(), failures=(failure,)))
    row = next(line for line in block(report).splitlines() if line.startswith("syntactic"))
    assert "80>≤80" in row
    table = page_of(report, run)[0].split('class="attack-table"')[1].split("</table>")[0]
    assert table.count("later not known") == 2  # of the peak, and of the lowest share of retained facts


def test_p_value_above_the_control_pays_for_the_choice_of_the_step(plain: Report, run: Path) -> None:
    """The made-up p-values are 0.0004 at three of five steps: by Holm the smallest of them is five times that."""
    report = attacked(plain, full_report())
    syntactic = viewed(report).sets[0]
    assert syntactic.excess is not None and syntactic.excess.p_value == 0.0004
    above = syntactic.above_control
    assert above is not None and (above.step, above.of) == (100, 5)
    assert above.p_value == pytest.approx(0.002)
    _, page = page_of(report, run)
    said = page.text.split("Attacks on the weights")[1].split("What forgetting cost")[0]
    assert "p 0.002 at 100, corrected for 5 steps" in said and "< 0.001" not in said
    assert "after Holm’s correction for their number" in page.text
    three = three_arms("relearn:syntactic", (0,) * 6)  # below the control at every step
    none = attacked(plain, replace(full_report(), relearning=(three,), failures=()))
    assert viewed(none).sets[0].above_control is None
    assert "above it at no step" in page_of(none, run)[1].text


def test_without_a_base_shares_are_of_all_facts_and_it_says_so(plain: Report, run: Path) -> None:
    report = attacked(plain, without_base(full_report()))
    said = words(block(report))
    sentence = "nothing here says that a fact came back"
    assert said.count("No base model was given") == 1 and sentence in said
    assert "R (%)" not in said and "leaked (%)" in said
    row = next(line for line in block(report).splitlines() if line.startswith("syntactic"))
    assert row.split()[:3] == ["syntactic", "18", "45"]  # 7 and 18 of 40
    _, page = page_of(report, run)
    assert sentence in page.text and "share of all audited facts by step" in str(page.elements)
    assert report.attacks is not None
    assert "nothing here says that a fact came back" in run_svg(report.attacks)


def test_with_nothing_to_bring_back_it_says_so(plain: Report, run: Path) -> None:
    attacks = replace(without_base(full_report()), known=(), open_facts=3, already_leaked=37)
    report = attacked(plain, attacks)
    said = words(block(report))
    assert "K: 0 facts" in said and "K is empty" in said and "leaked (%)" in said
    assert "Left out of K: 3 undecided, 37 that leak without any attack." in said
    assert "K is empty" in page_of(report, run)[1].text


def test_all_undecided_is_not_read_as_nothing(plain: Report, run: Path) -> None:
    backs: dict[int | None, int] = dict.fromkeys(STEPS, 0)
    only = relearning("relearn:topical", [curve("candidate", backs, undecided=len(KNOWN), kept=[0] * 6)])
    attacks = replace(full_report(), relearning=(only,), changes=(), failures=())
    report = attacked(plain, attacks)
    row = next(line for line in block(report).splitlines() if line.startswith("topical"))
    assert "0+100? [0, 100]" in row and row.split()[-1] == "open"
    assert len(re.findall(r"\+100\?", row)) >= 2
    _, page = page_of(report, run)
    assert "+100.0%?" in page.text and "not decided" in page.text
    (panel,) = panels(attacks)
    ((kind, points),) = panel.bands
    assert kind == "open" and f"{panel.right:g},{panel.top:g}" in points  # up to the very top
    assert "undecided: up to 100%" in panel.alt
    (shared,) = overlays({"a": attacks})
    assert [kind for kind, _ in shared.bands] == ["open run-0"]


def test_one_point_alone_and_a_step_that_is_not_known(plain: Report, run: Path) -> None:
    one = relearning("relearn:a", [curve("candidate", {25: 8})])
    recorded = relearning("relearn:b", [curve("candidate", {0: 0, None: 8}, attack="relearn:b")])
    for sets in ((one,), (recorded,), (one, recorded)):
        attacks = replace(full_report(), relearning=sets, changes=(), failures=())
        report = attacked(plain, attacks)
        text = block(report)
        row = next(line for line in text.splitlines() if line.startswith(sets[-1].attack[-1] + " "))
        assert "25 [" in row
        html, page = page_of(report, run)
        assert page.open == [] and "25.0%" in page.text and "NaN" not in html
        assert ElementTree.fromstring(run_svg(attacks)) is not None
    assert "after" in block(report).splitlines()[3]


def test_a_seed_that_broke_off_leaves_no_mean_behind_it(plain: Report) -> None:
    """A mean over fewer seeds is another number, and what the broken seed would have shown is not known."""
    whole_seed = curve("candidate", dict(zip(STEPS, (0, 1, 2, 3, 4, 5), strict=True)))
    broken = curve("candidate", {0: 0, 25: 9}, seed=1)
    failure = Failure(attack="relearn:syntactic#1", arm="candidate", puts_back=False, why="the loss is no number")
    attacks = replace(
        full_report(),
        relearning=(relearning("relearn:syntactic", [whole_seed, broken]),),
        changes=(),
        failures=(failure,),
    )
    (panel,) = panels(attacks)
    mean = next(line for line in panel.lines if line.kind == "candidate")
    assert len(mean.dots) == 2 and len([line for line in panel.lines if line.kind == "seed"]) == 2
    row = next(line for line in block(attacked(plain, attacks)).splitlines() if line.startswith("syntactic"))
    assert "≥ 28" in row
    (view,) = viewed(attacked(plain, attacks)).sets
    assert view.failures == (failure,)


def test_no_worst_case_is_not_known_rather_than_nothing(plain: Report, run: Path) -> None:
    report = replace(plain, attacks=replace(full_report(), first=(), weights_floor=None))
    assert "worst_case.weights: not known" in block(report)
    assert len(viewed(report).union) == 0


# ------------------------------------------------------------------------------------------------------- pictures


def test_picture_of_one_run_by_the_command(plain: Report, run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report_command)
    refused = CliRunner().invoke(app, [str(run), "--format", "svg"])
    assert isinstance(refused.exception, ConfigError) and "--attack relearn" in (refused.exception.hint or "")
    data = msgspec.to_builtins(attacked(plain, full_report()))
    (tmp_path / "report.json").write_bytes(msgspec.json.encode(sealed(data)))
    out = tmp_path / "curves.svg"
    assert CliRunner().invoke(app, [str(tmp_path), "--format", "svg", "--out", str(out)]).exit_code == 0
    picture = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    assert picture.tag == f"{SVG}svg"
    texts = words(" ".join("".join(each.itertext()) for each in picture.iter(f"{SVG}text")))
    assert "K: 32 facts" in texts and "syntactic 32 facts" in texts and "puts the knowledge back" in texts
    assert "not known: relearn:unrelated on candidate, not carried through" in texts


def test_several_runs_in_one_picture() -> None:
    mine, low = full_report(), three_arms("relearn:syntactic", (0, 0, 1, 1, 2, 2))
    other = replace(mine, relearning=(low,), known=KNOWN[:20], failures=())
    svg = curves_svg({"JensUn": mine, "gradient_ascent": other})
    texts = [" ".join("".join(each.itertext()).split()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "JensUn (K = 32)" in texts and "gradient_ascent (K = 20)" in texts
    drawn = {panel.attack: panel for panel in overlays({"JensUn": mine, "gradient_ascent": other})}
    assert [line.run for line in drawn["relearn:syntactic"].lines] == [0, 1]
    assert [line.run for line in drawn["relearn:topical"].lines] == [0]
    assert "gradient_ascent: not run" in drawn["relearn:topical"].alt
    high, lower = (line.dots[-1][1] for line in drawn["relearn:syntactic"].lines)
    assert high < lower  # 14 of 32 stands above 2 of 32, in pixels from the top
    bare = without_base(mine)
    assert "nothing says what came back" in curves_svg({"a": mine, "b": bare})
    with pytest.raises(ConfigError, match="none of the runs"):
        curves_svg({"a": replace(mine, relearning=())})


def test_steps_stand_at_equal_distances_and_are_thinned_where_there_are_many() -> None:
    attacks: AttackReport = full_report()
    axis = [x for x, _ in panels(attacks)[0].ticks_x]
    gaps = {round(b - a, 1) for a, b in pairwise(axis)}
    assert len(axis) == len(STEPS) and max(gaps) - min(gaps) < 0.2
    many = relearning("relearn:a", [curve("candidate", {10 * i: min(i, 30) for i in range(31)})])
    ticks = panels(replace(attacks, relearning=(many,)))[0].ticks_x
    assert len(ticks) <= 9 and ticks[-1][1] == "300"


def test_numbers_in_whole_per_cent_never_round_to_nothing_or_all() -> None:
    assert [whole(x) for x in (0.0, 0.001, 0.344, 0.999, 1.0)] == ["0", "1", "34", "99", "100"]
    assert whole(0.1, 0.0301) == "10+4?"
