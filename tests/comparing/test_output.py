"""Every form of output: complete, in its width, and with names that are nothing but names."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.comparing.build import compare_runs
from audit.comparing.html import html, svg
from audit.comparing.latex import escape, latex
from audit.comparing.model import Comparison
from audit.comparing.runs import Run, open_run
from audit.comparing.scatter import HEIGHT, WIDTH, scatter
from audit.comparing.tables import markdown, numbers_csv, pairs_csv
from audit.comparing.words import p_text, points
from audit.report.read import load_report
from audit.report.terminal import rough
from tests.comparing.conftest import Maker, Ran
from tests.report.test_html import CHROMIUM, Page

Audit = Callable[..., Ran]
#: What a run may be called by someone who wants more than a name.
NAMES = (
    '<script>document.documentElement.dataset.taken="1"</script>',
    '[*] \\input{/etc/passwd} $x_1^2$ 50% & #1 ~ -- `a\' "q"',
    "=HYPERLINK(1)|`code` *bold* [link](x) ![i](j)",
    "é ß 漢字 \u202eevil\u202c \x07 {{ 7 * 7 }}",
)
PDFLATEX = shutil.which("pdflatex")


@pytest.fixture(scope="module")
def hostile(runs: dict[str, Run], make: Maker) -> Comparison:
    """Five names that act, one of them a method of three seeds; undecided facts; a column that is missing for one."""
    chosen = ("good", "leaky", "unsure", "wreck")
    named = [open_run(runs[run].path, name) for run, name in zip(chosen, NAMES, strict=True)]
    seeds = [runs[seed] for seed in ("s0", "s1", "s2")]
    return compare_runs([*named, *seeds], groups={"<b>method</b> & \\co_": ("s0", "s1", "s2")})


def test_page_is_well_formed_inert_and_complete(hostile: Comparison) -> None:
    text = html(hostile)
    page = Page(text)
    assert page.open == []
    tags = [tag for tag, _ in page.elements]
    assert tags.count("style") == 1 and "script" not in tags and tags.count("h1") == 1 and "b" in tags
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "form", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")]
    assert "http://" not in text and "https://" not in text and "\u202e" not in text and "\x07" not in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert style and policy
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].replace("&#39;", "'") == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'"
    for words in (NAMES[0], NAMES[2], "<b>method</b> & \\co_", "‹U+202E›evil‹U+202C› ␇ {{ 7 * 7 }}"):
        assert words in page.text
    assert f"{hostile.task.n_forget} facts to forget in 8 topics" in page.text
    assert (
        "20 undecided: uncorrected p <0.001 as no leak" in page.text and "checkpoints, not between methods" in page.text
    )
    assert page.text.count("facts only") + page.text.count("not shown") >= len(hostile.pairs)
    assert "forgotten" not in page.text.lower()


def test_scatter_stays_in_its_frame_and_marks_the_front(hostile: Comparison) -> None:
    plot = scatter(hostile)
    assert plot is not None
    for spot in plot.spots:
        assert plot.left <= spot.x <= plot.right and plot.top <= spot.y <= plot.bottom
        if spot.label:
            assert 0 <= spot.text_x <= WIDTH and 0 <= spot.text_y <= HEIGHT
    kinds = {spot.name: spot.kind for spot in plot.spots}
    assert kinds[NAMES[0]] == "front" and kinds[NAMES[1]] == "behind" and kinds["base"] == "base"
    assert list(kinds.values()).count("seed") == 3
    xs = [float(point.split(",")[0]) for point in plot.front.split()]
    ys = [float(point.split(",")[1]) for point in plot.front.split()]
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True), "more is kept only where more leaks"
    places = [(spot.text_x, spot.text_y) for spot in plot.spots if spot.label]
    assert len(set(places)) == len(places), "no two labels on one place"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_runs_nothing_and_draws_the_points(hostile: Comparison, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    page = tmp_path / "page.html"
    page.write_text(html(hostile), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "data-taken" not in shown.stdout and shown.stdout.count('class="dot at-') >= 9


def test_the_plot_alone_is_one_picture_with_every_name_as_text(hostile: Comparison) -> None:
    picture = ElementTree.fromstring(svg(hostile))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg" and {tag.tag.removeprefix(space) for tag in picture.iter()} <= {
        *("svg", "style", "rect", "line", "text", "polyline", "g", "title", "circle", "path")
    }
    plot = scatter(hostile)
    assert plot is not None
    texts = {element.text for element in picture.iter(f"{space}text")}
    assert {spot.label for spot in plot.spots if spot.label and spot.label.isprintable()} <= texts
    assert "var(--" not in re.sub(r"var\(--(paper|ink|soft|line|leak|keep|base|never)\)", "", svg(hostile))


def test_latex_of_any_name_compiles_in_a_plain_article(hostile: Comparison, tmp_path: Path) -> None:
    text = latex(hostile)
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    article = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\input{table}\n\\end{document}\n"
    (tmp_path / "article.tex").write_text(article)
    assert text.count("\\begin{tabular}") == 4 and text.count("\\toprule") == 4 and text.isprintable() is False
    assert "\\input{/etc" not in text and "\u202e" not in text
    for line in text.splitlines():
        if line.endswith("\\\\"):
            assert line.startswith("{}"), "what begins with [ or * is no option of the line before"
            assert len(re.findall(r"(?<!\\)&", line)) in (1, 4, 5, 7, 8), line
        assert not line.startswith("[")
    if PDFLATEX is None:
        pytest.skip("no pdflatex here: compiled where there is one")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "article.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert ran.returncode == 0, ran.stdout.decode(errors="replace")[-800:]
    assert (tmp_path / "article.pdf").stat().st_size > 0


def test_every_character_of_latex_is_escaped() -> None:
    assert escape("a_b & 50% #1 $x$ {y} ~ ^ \\ <>|") == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{}\textgreater{}\textbar{}"
    )
    assert escape("two\nlines\there") == "two lines here" and escape("a--b,,c") == "a-{}-b,{},c"
    assert escape("漢").isascii() and escape("é") == "é"


def test_markdown_leaves_names_alone(hostile: Comparison) -> None:
    text = markdown(hostile)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert len(widths) == 2, "two tables, each of one width"
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "\\`code\\` \\*bold\\* \\[link\\](x) \\!\\[i\\](j)" in text
    assert sum(line.startswith("| · s") for line in tables) == 3


def test_csv_has_a_row_a_candidate_and_an_estimates_columns(hostile: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(numbers_csv(hostile))))
    assert [row["kind"] for row in rows] == ["reference", *["checkpoint"] * 4, "method", *["seed"] * 3]
    good = rows[1]
    estimate = hostile.entries[0].estimates["worst_case.prompt"]
    assert float(good["worst_case.prompt"]) == estimate.value and float(good["worst_case.prompt_high"]) == estimate.high
    assert good["worst_case.prompt_n"] == "40" and good["on_front"] == "true" and good["seconds"] == ""
    unsure = rows[3]
    assert unsure["worst_case.prompt_undecided"] == "20" and float(unsure["worst_case.prompt_upper_bound"]) == 21 / 40
    assert unsure["label"].startswith("'=HYPERLINK"), "no formula for a spreadsheet"
    method = rows[5]
    assert method["seeds"] == "3" and float(method["retain.mean_sd"]) > 0 and method["retain.mean_low"] == ""
    pairs = list(csv.DictReader(io.StringIO(pairs_csv(hostile))))
    assert len(pairs) == len(hostile.pairs)
    assert float(pairs[0]["facts_p_value"]) == hostile.pairs[0].facts.p_value


def test_terminal_keeps_to_80_columns(audit: Audit, folders: dict[str, Path]) -> None:
    seeds = ["--group", f"rmu={folders['s0']},s1,s2"]
    ran = audit("compare", *folders.values(), *seeds, "--label", f"{NAMES[3]}={folders['good']}")
    assert ran.code == 0, ran.err
    tables = ran.out.split("p-values:")[0].splitlines()[1:]
    assert max(map(len, tables)) <= 80
    for path in folders.values():
        for name in ("single.original", "worst_case.prompt", "retain.mean", "corrected.worst_case.prompt"):
            assert rough(load_report(path).estimates[name]) in ran.out, "no number is cut to fit"
    assert "\u202e" not in ran.out and "\x1b" not in ran.out and "‹U+202E›" in ran.out
    assert "rmu" in ran.out and "± " in ran.out and "on front" in ran.out
    assert "checkpoints, not between methods" in " ".join(ran.out.split())
    assert re.search(r"With 8 topics and 15 pairs no difference can be shown by topic", " ".join(ran.out.split()))


def test_each_form_is_written_whole_or_printed_alone(audit: Audit, folders: dict[str, Path], tmp_path: Path) -> None:
    two = (folders["good"], folders["leaky"])
    for form, begins in (
        ("html", "<!doctype html>"),
        ("md", "**task"),
        ("latex", "% needs"),
        ("csv", "kind,label"),
        ("pairs-csv", "first,second"),
        ("json", "{"),
    ):
        shown = audit("compare", *two, "--format", form)
        assert shown.code == 0 and shown.out.lstrip().startswith(begins), shown.err
        file = tmp_path / f"comparison.{form}"
        written = audit("compare", *two, "--format", form, "--out", file)
        assert written.code == 0 and written.out == "" and f"wrote {file}" in written.err
        assert file.read_text(encoding="utf-8") == shown.out
    assert json.loads(audit("compare", *two, "--json").out)["entries"][0]["label"] == "good"
    assert audit("compare", *two, "--out", tmp_path / "x").code == 2
    assert audit("compare", *two, "--json", "--format", "csv").code == 2
    assert audit("compare", *two, "--alpha", "1.5").code == 2
    ran = audit("compare", *two, "--format", "csv", "--out", tmp_path / "no" / "where.csv")
    assert ran.code == 2 and "cannot be written" in ran.err


def test_numbers_in_words() -> None:
    assert [p_text(p) for p in (0.0004, 0.0123, 0.5, 1.0)] == ["<0.001", "0.012", "0.5", "1"]
    assert [points(d) for d in (0.1234, -0.5, 0.0, -0.0001)] == ["+12.3", "−50.0", "0.0", "0.0"]
