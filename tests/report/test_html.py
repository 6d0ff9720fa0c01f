"""report.html of a real run: complete, inert, and readable without anything else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audit.cli.report import report as report_command
from audit.errors import RunFolderError, StoreError
from audit.report.html import limits, marked, percent_short, printable, write_html
from audit.report.seal import sealed
from audit.stats.shares import share_of_facts
from tests.report.conftest import ATTACKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "br", "input", "rect", "line", "circle", "path"}


class Page(HTMLParser):
    """Every element with its attributes, the text, and whether all elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="session")
def html(run: Path) -> str:
    return write_html(run).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def test_page_is_well_formed_and_needs_nothing_from_outside(html: str, page: Page) -> None:
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "form", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "http://" not in html and "https://" not in html


def test_nothing_a_model_or_a_task_says_becomes_markup(html: str, page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and tags.count("style") == 1 and tags.count("h1") == 1
    assert "svg" in tags and not any("onload" in attributes for _, attributes in page.elements)
    for attack in ATTACKS[:5]:
        assert " ".join(attack.split()) in page.text  # shown, word for word
    assert "What is the capital of <script>alert(0)</script> region 0?" in page.text


def test_characters_that_act_are_shown_as_symbols(html: str) -> None:
    for character in ("\u202e", "\u202c", "\x07", "\x1b", "\x00"):
        assert character not in html
    assert "safe‹U+202E›gnidaer‹U+202C› ␇␛[31mred␀ end" in html
    assert printable("a\tb\nc é 漢 \ud800") == "a\tb\nc é 漢 ‹U+D800›"


def test_only_the_pages_own_script_and_style_may_run(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in allowed and "unsafe" not in allowed
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in allowed


def test_page_says_what_the_report_says(run: Path, page: Page) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] in page.text
    assert "5 of 40" in page.text and "cand<b>idate" in page.text
    for name, estimate in report["estimates"].items():
        assert name in page.text
        assert estimate["method"] in page.text
    for kind in report["canaries"]["kinds"]:
        assert kind["kind"].replace("_", " ") in page.text
    for warning in report["warnings"]:
        assert " ".join(warning.split()) in page.text
    assert report["manifest"]["probe_set"] in page.text
    assert "forgotten" not in page.text.lower()


def test_every_leak_is_there_with_prompt_reply_and_verdict(run: Path, page: Page) -> None:
    rulings = [json.loads(line) for line in (run / "rulings.jsonl").read_text(encoding="utf-8").splitlines()]
    leaks = [
        r
        for r in rulings
        if (r["subject_id"], r["purpose"], r["label"]) == ("candidate", "leak", "leak") and r["fact_id"][0] == "f"
    ]
    assert len(leaks) == 10
    tries = [attributes for tag, attributes in page.elements if tag == "article"]
    assert len(tries) == len(leaks)
    facts = [a for _, a in page.elements if "data-outcome" in a]
    assert [a["data-outcome"] for a in facts].count("leak") == 5
    assert [a["data-outcome"] for a in facts].count("undecided") == 1
    assert len(facts) == 40
    judge = leaks[0]["votes"].popitem()[0]
    assert page.text.count(judge) == len(leaks) + 2  # beside each verdict, on its card, and in the manifest


def test_answer_in_a_reply_is_marked(html: str) -> None:
    assert html.count("<mark>Oslovillea</mark>") == 2
    assert marked("Paris, not Parisian; PARIS", ["paris"]) == [
        ("Paris", True),
        (", not Parisian; ", False),
        ("PARIS", True),
    ]
    assert marked("a.b", ["a.b", ""]) == [("a.b", True)]
    assert marked("nothing", []) == [("nothing", False)]


def test_limit_on_evidence_is_said(run: Path, tmp_path: Path) -> None:
    page = Page(write_html(run, tmp_path / "few.html", max_evidence=5).read_text(encoding="utf-8"))
    assert sum(tag == "article" for tag, _ in page.elements) == 5  # one a fact, never none
    assert "5 further tries are not shown here" in page.text


def test_page_without_records_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "report.json", tmp_path)
    page = Page(write_html(tmp_path).read_text(encoding="utf-8"))
    assert "Not in this folder: probes.jsonl, responses.jsonl, rulings.jsonl, verdicts.jsonl" in page.text
    assert "5 of 40" in page.text


def test_broken_records_are_named_with_file_and_line(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    with (folder / "rulings.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"probe_id": 3}\n')
    number = len((folder / "rulings.jsonl").read_text(encoding="utf-8").splitlines())
    with pytest.raises(RunFolderError, match=rf"rulings\.jsonl, line {number}"):
        write_html(folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["estimates"]["retain.mean"]["value"] = None
    (folder / "report.json").write_text(json.dumps(sealed(report)), encoding="utf-8")
    with pytest.raises(RunFolderError, match="not a report of this version"):
        write_html(folder)


def test_an_unwritable_place_is_one_clear_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_html(run, tmp_path / "missing" / "page.html")


def test_report_command(run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report_command)
    page, copied = tmp_path / "page.html", tmp_path / "report.json"
    assert CliRunner().invoke(app, [str(run), "--out", str(page)]).exit_code == 0
    assert page.read_text(encoding="utf-8") == write_html(run).read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, [str(run), "--format", "json"])
    original = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert json.loads(printed.stdout) == original
    assert CliRunner().invoke(app, [str(run), "--format", "json", "--out", str(copied)]).exit_code == 0
    assert json.loads(copied.read_text(encoding="utf-8")) == original


def test_numbers_of_the_tables() -> None:
    assert [percent_short(x) for x in (0.0, 0.0004, 0.5, 0.9996, 1.0)] == ["0.0%", "<0.1%", "50.0%", ">99.9%", "100.0%"]
    topics = {f"f{i}": "t" for i in range(100)}
    none = share_of_facts(dict.fromkeys(topics, "no_leak"), topics, name="x", probe_set="p")
    assert limits(none) == "≤ 3.0%"
    some = share_of_facts({f: "leak" if f < "f2" else "no_leak" for f in topics}, topics, name="x", probe_set="p")
    assert limits(some) == "6.4–20.0%"


# ----------------------------------------------------------------------------------------------------------- browser


def rendered(path: Path, folder: Path) -> str:
    """The page's document after its script has run in a real browser."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on the path")
        pytest.skip("no Chromium on the path")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()


def with_more_script(html: str, code: str) -> str:
    """The page with `code` at the end of its script, and its policy made to fit."""
    before = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert before is not None
    after = before[1] + code
    old, new = (base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in (before[1], after))
    return html.replace(before[1], after).replace(old, new)


@pytest.mark.browser
def test_in_a_browser_attacks_do_nothing_and_the_filter_counts(html: str, run: Path, tmp_path: Path) -> None:
    dom = rendered(run / "report.html", tmp_path)
    assert '<html lang="en" class="js">' in dom  # no data-taken, and our own script ran
    assert re.search(r'id="shown"[^>]*>40 facts<', dom)


@pytest.mark.browser
def test_in_a_browser_facts_are_filtered_and_opened(html: str, tmp_path: Path) -> None:
    code = """
    document.getElementById("by-outcome").value = "leak";
    document.getElementById("by-topic").value = "<i>t0</i>";
    document.getElementById("by-family").value = "paraphrase";
    document.getElementById("by-family").dispatchEvent(new Event("change"));
    document.getElementById("open-all").click();
    """
    changed = tmp_path / "page.html"
    changed.write_text(with_more_script(html, code), encoding="utf-8")
    dom = rendered(changed, tmp_path)
    assert re.search(r'id="shown"[^>]*>5 of 40 facts<', dom)
    assert len(re.findall(r'<details class="fact"[^>]* open=""', dom)) == 5
    assert len(re.findall(r'<article class="try" data-family="original" hidden=""', dom)) == 5
