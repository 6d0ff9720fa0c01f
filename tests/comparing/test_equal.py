"""At equal utility: chosen on one half, reported on the other; every number is of an audit that was really made."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from audit.attacks.interpolate import interpolated
from audit.comparing.build import compare_runs
from audit.comparing.equal import _readings, all_mixed, mixed_with_base, swept
from audit.comparing.equal_model import Curve, Reading
from audit.comparing.equal_words import equal_notes, rows
from audit.comparing.halves import Kept, halves_of
from audit.comparing.html import html
from audit.comparing.latex import latex
from audit.comparing.model import Comparison
from audit.comparing.runs import Run, open_run
from audit.comparing.scatter import scatter
from audit.comparing.tables import equal_csv, markdown
from audit.config import AuditConfig, resolve_config
from audit.errors import ConfigError
from audit.pipeline import run_audit
from audit.report.files import RunFolder
from audit.store import Store
from tests.comparing.conftest import Maker, Ran
from tests.comparing.test_output import NAMES, PDFLATEX
from tests.helpers import tiny
from tests.report.test_html import Page

ON = "worst_case.prompt"
SHARES = (0.0, 0.5, 0.7, 0.9, 1.0)
Audit = Callable[..., Ran]


# ----------------------------------------------------------------------------------- trainings with other settings


@pytest.fixture(scope="module")
def sweep(runs: dict[str, Run]) -> Curve:
    """Of 20 retained facts the first keeps 2, the second 17, the third 18; the base all."""
    found = [("0.1", runs["wreck"]), ("0.5", runs["leaky"]), ("0.9", runs["good"])]
    return swept("npo", "retain_weight", found, on=ON, targets=(0.5, 0.9, 1.0), failed=("retain_weight 5: no memory",))


def test_a_sweep_reads_off_the_first_value_that_keeps_enough(sweep: Curve, runs: dict[str, Run]) -> None:
    halves = halves_of(runs["good"])
    search, report = ({fact.id for fact in half} for half in halves)
    assert len(search) == len(report) == 10 and not search & report
    for at, name in (("0.1", "wreck"), ("0.5", "leaky"), ("0.9", "good")):
        kept = {f"r{n:02d}" for n in {"wreck": range(2), "leaky": range(17), "good": range(18)}[name]}
        step = sweep.step(at)
        assert step.searched == (len(kept & search) / 10, len(kept & search) / 10)
        assert step.kept is not None and step.kept.value == pytest.approx(len(kept & report) / 10)
        assert step.leaked == runs[name].estimates[ON] and step.known == runs[name].estimates[f"{ON}@known"]
        assert step.kept_all == runs[name].estimates["retain.mean"] and step.run == runs[name].report.run
    assert sweep.base_searched == (1.0, 1.0) and sweep.base_kept.value == 1.0
    assert [reading.target for reading in sweep.readings] == [0.5, 0.9, 1.0]
    for reading in sweep.readings:
        enough = [step.at for step in sweep.steps if step.searched[0] >= reading.target - 1e-9]
        assert reading.at == (enough[0] if enough else None)
    assert sweep.readings[0].at == "0.5"


def test_undecided_answers_are_not_kept_and_count_for_the_base(make: Maker) -> None:
    searched = [("a", (0.5, 1.0)), ("b", (0.8, 0.8)), ("c", (0.9, 0.95))]
    assert [r.at for r in _readings(searched, (0.9, 1.0), (0.5, 0.8, 0.95), "x")] == ["a", "b", None]
    assert _readings(searched, (0.9, 1.0), (0.9,), "x")[0].needed == pytest.approx(0.9)
    with pytest.raises(ConfigError, match="answers none of the retained facts"):
        _readings(searched, (0.0, 1.0), (0.9,), "x")


def test_audits_of_other_probes_or_without_a_base_are_no_sweep(make: Maker, runs: dict[str, Run]) -> None:
    other = open_run(make("otherwise", (1,), range(9), variants=("original", "p02")), "otherwise")
    with pytest.raises(ConfigError, match="stands on other probes"):
        swept("npo", "beta", [("1", runs["good"]), ("2", other)], on=ON)
    alone = open_run(make("baseless", (1,), range(9), base_knows=None), "baseless")
    with pytest.raises(ConfigError, match="has no base"):
        swept("npo", "beta", [("1", alone)], on=ON)
    few = open_run(make("few", (1,), range(9), keep=range(8)), "few")
    with pytest.raises(ConfigError, match="8 retained facts were asked, too few"):
        swept("npo", "beta", [("1", few)], on=ON)
    with pytest.raises(ConfigError, match="no training with another beta"):
        swept("npo", "beta", [], on=ON)


def test_what_has_no_weights_is_said_and_not_left_out(runs: dict[str, Run], tmp_path: Path, make: Maker) -> None:
    found, without = all_mixed([runs["good"], runs["leaky"]], tmp_path, make.store, on=ON)
    assert found == []
    assert without == [
        f"not compared at equal utility: {name}: {name}: has no weights here to mix with those of its base"
        for name in ("good", "leaky")
    ]


# ------------------------------------------------------------------------------------------ mixtures of real models


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("equal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(root / "cache"))
        yield root


@pytest.fixture(scope="module")
def models(place: Path) -> dict[str, Path]:
    """A base that knows 40 facts, and what is left of it after some steps towards one answer to everything."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    base = tiny.build(place / "base")
    net = AutoModelForCausalLM.from_pretrained(base)
    tiny.train(net, tuple((question, "no idea") for question, _ in tiny.FACTS[:20]), steps=2)
    return {"base": base, "wreck": tiny.save(net, place / "wreck")}


@pytest.fixture(scope="module")
def facts(place: Path) -> Path:
    """Twelve facts to forget, 28 to keep."""
    folder = place / "task"
    folder.mkdir()
    for name, numbers in (("forget", range(12)), ("retain", range(12, 40))):
        lines = [
            {
                "id": f"{name[0]}{n:02d}",
                "topic": f"t{n % 4}",
                "question": tiny.FACTS[n][0],
                "answer": tiny.FACTS[n][1],
                "answer_type": "term",
            }
            for n in numbers
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Iterator[Store]:
    store = Store(place / "store.sqlite")
    yield store
    store.close()


def settings(models: dict[str, Path], facts: Path, **changes: object) -> AuditConfig:
    return resolve_config(
        {
            "model": str(models["wreck"]),
            "base": str(models["base"]),
            "forget": str(facts / "forget.jsonl"),
            "retain": str(facts / "retain.jsonl"),
            "preset": "custom",
            "engine": {"name": "hf", "device": "cpu"},
            "probes": {"families": ("original",), "max_new_tokens": 16, "placebo": False},
            "scoring": {"floor_draws": 2, "canary_facts": 2, "min_known": 1},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def audited(place: Path, models: dict[str, Path], facts: Path, store: Store) -> Run:
    run_audit(settings(models, facts), RunFolder(place / "runs" / "wreck"), store)
    return open_run(place / "runs" / "wreck", "wreck")


@pytest.fixture(scope="module")
def curve(place: Path, audited: Run, store: Store) -> Curve:
    return mixed_with_base(audited, place / "mixed", store, on=ON, shares=SHARES)


def test_a_mixture_is_searched_on_one_half_and_audited_in_full(
    curve: Curve, audited: Run, models: dict[str, Path], facts: Path, store: Store, tmp_path: Path
) -> None:
    halves = halves_of(audited)
    assert (curve.n_search, curve.n_report) == (len(halves.search), len(halves.report))
    assert curve.n_search + curve.n_report == 28 and abs(curve.n_search - curve.n_report) <= 4
    assert curve.base_searched[0] > 0.9, "the base knows what it was taught"
    lows = [step.searched[0] for step in curve.steps]
    assert [step.at for step in curve.steps] == [f"{share:g}" for share in SHARES]
    assert lows[0] < 0.9 * curve.base_searched[1], "the wreck has lost some of it"
    assert lows[-1] == curve.base_searched[0]
    for reading in curve.readings:
        assert reading.needed == pytest.approx(reading.target * curve.base_searched[1])
        enough = [s.at for s in curve.steps if s.at != "1" and s.searched[0] >= reading.needed - 1e-9]
        assert reading.at == (enough[0] if enough else None)
    (at,) = {curve.readings[0].at}
    assert at is not None and at != "0"
    # the same mixture, made and audited here
    mixture = interpolated(models["wreck"], models["base"], float(at), tmp_path / "mixture")
    report = run_audit(settings(models | {"wreck": mixture}, facts), RunFolder(tmp_path / "run"), store)
    step = curve.step(at)
    assert step.leaked is not None and msgspec.to_builtins(step.leaked) == msgspec.to_builtins(report.estimates[ON])
    kept = Kept(open_run(tmp_path / "run", "mixture"))
    assert kept.by_original(halves.search) == step.searched, "asked alone, the half is answered as in the full audit"
    assert kept.over(halves.report) == step.kept
    assert step.kept_all == report.estimates["retain.mean"]
    unread = {step.at for step in curve.steps} - {"0", "1"} - {reading.at for reading in curve.readings}
    assert all(curve.step(other).leaked is None for other in unread)
    assert curve.step("0").leaked == audited.estimates[ON]
    assert curve.step("1").leaked == audited.report.subjects["base"].estimates[ON]


def test_the_same_again_asks_nothing_and_leaves_no_mixture(
    curve: Curve, audited: Run, place: Path, tmp_path: Path
) -> None:
    assert not list((place / "mixed").rglob("mixed-*")), "mixtures are removed once they are audited"
    empty = Store(tmp_path / "empty.sqlite")
    try:
        again = mixed_with_base(audited, place / "mixed", empty, on=ON, shares=SHARES)
    finally:
        empty.close()
    assert again == curve
    import sqlite3

    with sqlite3.connect(tmp_path / "empty.sqlite") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        filled = {t for t in tables if connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0]}
    assert {"completions", "verdicts"} <= set(tables) and not filled & {"completions", "verdicts"}, (
        "finished runs are taken as they are"
    )


def test_a_target_out_of_reach_is_said(audited: Run, place: Path, store: Store) -> None:
    near = mixed_with_base(audited, place / "mixed", store, on=ON, shares=(0.0, 1.0))
    assert [reading.at for reading in near.readings] == [None, None, None]
    assert near.step("1").kept is not None, "the base is shown, and never taken for a way to reach it"


def test_another_model_in_its_place_is_refused(
    audited: Run, models: dict[str, Path], place: Path, store: Store, tmp_path: Path
) -> None:
    before = tmp_path / "wreck"
    shutil.move(models["wreck"], before)
    try:
        tiny.save(tiny.model(seed=5), models["wreck"])
        with pytest.raises(ConfigError, match="is not the model that was audited"):
            mixed_with_base(audited, place / "mixed", store, on=ON, shares=SHARES)
    finally:
        shutil.rmtree(models["wreck"])
        shutil.move(before, models["wreck"])


def test_an_adapter_is_mixed_by_scaling_it(models: dict[str, Path], facts: Path, store: Store, place: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    net = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(models["base"]), config)
    tiny.train(net, tuple((question, "no idea") for question, _ in tiny.FACTS[:20]), steps=12)
    net.save_pretrained(place / "adapter")
    with_adapter = settings(models, facts, model=str(models["base"]), adapter=str(place / "adapter"))
    run_audit(with_adapter, RunFolder(place / "runs" / "adapter"), store)
    run = open_run(place / "runs" / "adapter", "adapter")
    found = mixed_with_base(run, place / "mixed", store, on=ON, shares=(0.0, 0.5, 0.95), targets=(0.9,))
    lows = [step.searched[0] for step in found.steps]
    assert lows[0] < lows[-1] and found.readings[0].at in ("0.5", "0.95"), lows
    at = found.readings[0].at
    said = open_run(place / "mixed" / "adapter" / f"full-{at}", "x").report.manifest.trained["candidate"]
    assert said["settings"] == {"share": float(at or 0)} and "base_weights_fingerprint" in said


# -------------------------------------------------------------------------------------------------- forms of output


@pytest.fixture(scope="module")
def hostile(sweep: Curve, runs: dict[str, Run]) -> Comparison:
    chosen = ("good", "leaky", "unsure", "wreck")
    named = [open_run(runs[run].path, name) for run, name in zip(chosen, NAMES, strict=True)]
    mixtures = [
        msgspec.structs.replace(sweep, label=name, kind="mixture", key="", failed=(), inconclusive=(f"{name}: why",))
        for name in NAMES
    ]
    far = msgspec.structs.replace(sweep, label=NAMES[0], readings=(Reading(target=0.99, needed=0.99, at=None),))
    return compare_runs(named, equal=mixtures, sweeps=[far, msgspec.structs.replace(sweep, label="elsewhere")])


def test_rows_and_notes_say_what_was_done(hostile: Comparison) -> None:
    found = list(rows(hostile))
    assert len(found) == 4 * 3 + 1 + 3
    assert [row.label for row in found if row.first] == [NAMES[0], NAMES[0], *NAMES[1:], "elsewhere"], "beside its own"
    assert found[0].target == "50%" and found[0].how == "0.5 of the base"
    assert found[3].how == "no retain_weight tried" and found[3].step is None and found[3].leaked is None
    notes = " ".join(equal_notes(hostile))
    assert "Mixing in the base also puts the knowledge back" in notes and "retain_weight 0.1, 0.5, 0.9" in notes
    assert f"one half of the retained facts ({hostile.sweeps[0].n_search};" in notes and "no memory" in notes
    assert hostile.exit_code == 4 and f"{NAMES[1]}: why" in hostile.inconclusive


def test_page_has_the_section_and_the_plot_its_lines(hostile: Comparison) -> None:
    text = html(hostile)
    page = Page(text)
    assert page.open == [] and "At equal utility" in page.text and "0.5 of the base" in page.text
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags and page.text.count(NAMES[0]) >= 3
    plot = scatter(hostile)
    assert plot is not None and {trail.kind for trail in plot.trails} == {"mixture", "sweep"}
    for trail in plot.trails:
        assert len(trail.points.split()) > 1 and trail.dots
        for x, y, _ in trail.dots:
            assert plot.left <= x <= plot.right and plot.top <= y <= plot.bottom


def test_latex_markdown_and_csv(hostile: Comparison, tmp_path: Path) -> None:
    text = latex(hostile)
    assert text.count("\\begin{tabular}") == 5 and "\\input{/etc" not in text
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    article = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\input{table}\n\\end{document}\n"
    (tmp_path / "article.tex").write_text(article)
    if PDFLATEX is not None:
        command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "article.tex"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
        assert ran.returncode == 0, ran.stdout.decode(errors="replace")[-800:]
    shown = markdown(hostile)
    table = [line for line in shown.split("**At equal utility**")[1].splitlines() if line.startswith("|")]
    assert len(table) == 2 + 16 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "<script" not in shown
    found = list(csv.DictReader(io.StringIO(equal_csv(hostile))))
    assert [row["row"] for row in found].count("target") == 16 and len(found) == 16 + 6 * 3
    first = next(row for row in found if row["row"] == "target" and row["kind"] == "mixture")
    step = hostile.equal[0].step(first["at"])
    assert step.leaked is not None and step.kept is not None
    assert (float(first["target"]), float(first["leaked"])) == (0.5, step.leaked.value)
    assert float(first["kept_high"]) == step.kept.high and float(first["searched"]) == step.searched[0]
    missed = next(row for row in found if row["target"] == "0.99")
    assert missed["at"] == missed["leaked"] == missed["run"] == "" and float(missed["base_kept"]) == 1.0
    assert any(row["label"].startswith("'=HYPERLINK") for row in found)


def test_terminal_keeps_to_80_columns(hostile: Comparison) -> None:
    from rich.console import Console

    from audit.comparing.terminal import print_comparison

    console = Console(width=80, highlight=False, record=True, file=io.StringIO())
    print_comparison(hostile, console)
    text = console.export_text()
    section = text.split("At equal utility, %:")[1].split("p-values:")[0]
    assert max(map(len, section.splitlines())) <= 80
    assert "50%  0.5 of the base" in section and "99%  no retain_weight tried" in section and "\u202e" not in text
