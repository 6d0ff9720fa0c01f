"""Other people's files, read where they lie. Set AUDIT_EXTERNAL_DATA to the folder that holds tofu/ and suite/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audit.tasks import load_task

_FOLDER = os.environ.get("AUDIT_EXTERNAL_DATA", "")
pytestmark = pytest.mark.skipif(not _FOLDER, reason="AUDIT_EXTERNAL_DATA is not set")
EXTERNAL = Path(_FOLDER)


@pytest.mark.parametrize(
    ("file", "count"),
    [("forget01.json", 400), ("forget05.json", 2000), ("forget10.json", 3600), ("real_authors_perturbed.json", 100)],
)
def test_tofu(file: str, count: int) -> None:
    task = load_task(str(EXTERNAL / "tofu" / file))
    assert len(task.forget) == count and task.warnings == ()


def test_tofu_perturbed_and_retained() -> None:
    forget, retain = (str(EXTERNAL / "tofu" / name) for name in ("forget01_perturbed.json", "retain90.json"))
    task = load_task(forget, retain=retain)
    assert all(len(f.wordings) == 1 and len(f.aliases) == 1 and len(f.distractors) == 5 for f in task.forget)
    assert len(task.retain) == 3598  # one question is asked of two authors, with two answers
    assert any("retain90.json:441" in w for w in task.warnings)


@pytest.mark.parametrize("topic", ["challenger_disaster", "salem_witch_trials", "steve_jobs_medical"])
def test_suite(topic: str) -> None:
    folder = EXTERNAL / "suite" / "dataset" / topic
    task = load_task(str(folder / "forget_eval_rephrasings.json"), retain=str(folder / "retain_eval.json"))
    assert len(task.forget) == 25
    for fact in task.forget:
        assert fact.form == "direct" and set(fact.other_forms) == {"indirect", "reverse"}
        assert len(fact.wordings) == 15
    short = sum(len(form.wordings) == 14 for fact in task.forget for form in fact.other_forms.values())
    full = sum(len(form.wordings) == 15 for fact in task.forget for form in fact.other_forms.values())
    assert short + full == 50
    told = sum("1 of 15 repeat another" in w for w in task.warnings)  # one line a group of like warnings
    assert (short > 0) == (told > 0)
    assert len(task.retain) >= 625


def test_every_dataset_file_loads_as_facts_to_keep() -> None:
    files = sorted((EXTERNAL / "suite" / "dataset").glob("*/*.json"))
    assert len(files) >= 15
    for file in files:
        assert load_task("lkf", retain=str(file)).retain
