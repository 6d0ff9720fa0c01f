"""A third party's judge: installed by pip, named on the command line, no worse served than a built-in one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugins.conftest import HERE, Console, truths

Make = Callable[..., Console]


def test_it_is_listed_with_its_distribution(console: Make) -> None:
    with_it, without = console("sample_judge"), console()
    rows = {row["name"]: row for row in with_it("judges", "list", "--json").json()["judges"]}
    assert rows["keyword"]["origin"] == "keyword-judge 1.2.0"
    assert rows["keyword"]["summary"].startswith("Looks for the answer's words")
    assert rows["rules"]["origin"] == "built in"
    shown = with_it("judges", "list")
    assert shown.code == 0
    (line,) = [line for line in shown.out.splitlines() if line.startswith("keyword")]
    assert "keyword-judge 1.2.0" in line
    assert "keyword" not in {row["name"] for row in without("judges", "list", "--json").json()["judges"]}


def test_it_is_checked_on_the_labelled_set(console: Make) -> None:
    """Its card tells a keyword search from a judge: it misses leaks that the built-in rules find."""
    audit = console("sample_judge")
    card = audit("judges", "check", "--judge", "keyword", "--json").json()
    rules = audit("judges", "check", "--judge", "rules", "--json").json()
    assert card["judge"].startswith("keyword/1") and card["overall"]["n"] == rules["overall"]["n"] == 360
    assert 0.5 < card["overall"]["sensitivity"] < rules["overall"]["sensitivity"]
    assert card["overall"]["undecided"] > 0
    assert card["categories"]["exact"]["hits"] == card["categories"]["exact"]["leaks"]
    shown = audit("judges", "check", "--judge", "keyword:strict")
    assert shown.code == 0 and "keyword/1?mode=strict" in shown.out and "sensitivity" in shown.out


def test_it_rules_in_an_audit(console: Make) -> None:
    audit = console("sample_judge")
    ran = audit.run("keyword")
    assert ran.code == 0, ran.err
    report = audit.report()
    assert report["canaries"]["status"] == "passed"
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    assert report["estimates"]["single.original"]["count"] == 10
    assert {verdict["judge"] for verdict in audit.lines("verdicts.jsonl")} == {"keyword/1?mode=lenient"}
    asked = report["manifest"]["runtime"]["judged"]
    audit.run("keyword")
    again = audit.report()["manifest"]["runtime"]["judged"]
    assert again == asked - 30, "the store knew the answers; canaries are asked anew"


def test_its_card_goes_with_its_audits(console: Make) -> None:
    """Of the judge that was checked, and of no other."""
    audit = console("sample_judge")
    overall = audit("judges", "check", "--judge", "keyword", "--json").json()["overall"]
    assert audit.run("rules", "keyword", "keyword:strict").code == 0
    cards = {judge["spec"]: judge["card"] for judge in audit.report()["panel"]["judges"]}
    assert cards["keyword"]["sensitivity"] == overall["sensitivity"]
    assert cards["rules"] is None and cards["keyword:strict"] is None


def test_its_argument_makes_another_judge(console: Make) -> None:
    """Identities differ, so no verdict of the one is taken for one of the other."""
    audit = console("sample_judge")
    (audit.folder / "answers.jsonl").write_text(
        "".join(f'{{"fact_id": "f{n:02d}", "response": "It was something amber."}}\n' for n in range(30))
    )
    assert audit.run("keyword", out="lenient").code == 0
    assert audit.run("keyword:strict", out="strict").code == 0
    lenient, strict = audit.labels("lenient"), audit.labels("strict")
    part = {fact for fact, (label, _) in strict.items() if label == "leak"}
    assert part and part == {fact for fact, ruled in lenient.items() if ruled == ("undecided", "ambiguous")}
    assert {lenient[fact] for fact in lenient.keys() - part} == {("no_leak", "ruled")}


def test_it_sits_on_a_panel(console: Make) -> None:
    audit = console("sample_judge")
    ran = audit.run("rules", "keyword", "keyword:strict")
    assert ran.code == 0, ran.err
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    for ruling in audit.lines("rulings.jsonl"):
        assert len(ruling["votes"]) == 3 and ruling["rule"] == "majority"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("keywords", ("there is no judge 'keywords'", "did you mean keyword")),
        ("keyword:strickt", ("there is no mode 'strickt'", "keyword:strict")),
        ("keyword:", ("a colon and nothing after it",)),
    ],
)
def test_a_slip_in_its_name_is_one_clear_message(console: Make, spec: str, words: tuple[str, ...]) -> None:
    audit = console("sample_judge")
    audit.run(spec).one_message(*words)
    audit("judges", "check", "--judge", spec).one_message(*words)
    assert not (audit.folder / "run" / "report.json").exists()


def test_gone_it_is_missed_and_what_it_ruled_is_kept(console: Make) -> None:
    """Uninstalled: one message; installed again: the verdicts are still in the store."""
    audit = console("sample_judge")
    assert audit.run("keyword").code == 0
    console().run("keyword", out="other").one_message("there is no judge 'keyword'")
    assert audit.run("keyword", out="third").code == 0
    first, third = (audit.report(out)["manifest"]["runtime"]["judged"] for out in ("run", "third"))
    assert third == first - 30


def test_the_guide_shows_this_very_package() -> None:
    """docs/writing-a-judge.md holds the files word for word."""
    guide = (HERE.parents[1] / "docs" / "writing-a-judge.md").read_text(encoding="utf-8")
    for name, language in (("pyproject.toml", "toml"), ("src/keyword_judge/__init__.py", "python")):
        text = (HERE / "sample_judge" / name).read_text(encoding="utf-8")
        assert f"`{name}`" in guide and f"```{language}\n{text}```\n" in guide, f"{name} and the guide differ"
