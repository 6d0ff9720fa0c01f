"""A task in two parts, and tasks written as folders: real facts, read back by the loader."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from audit.errors import TaskError
from audit.tasks import Task, load_task
from audit.tasks.manifest import hash_files, read_manifest
from audit.tasks.parting import part_facts, part_task, write_task
from audit.types import Fact
from tests.helpers.facts import fact, retained, task


@pytest.fixture(scope="module")
def lkf() -> Task:
    return load_task("lkf")


def test_lkf_is_written_and_read_back_whole(lkf: Task, tmp_path: Path) -> None:
    folder = write_task(lkf, tmp_path / "copy")
    back = load_task(str(folder))
    assert back.forget == lkf.forget and back.retain == lkf.retain and back.placebo == lkf.placebo
    assert back.forget[0].wordings and back.forget[0].train_wordings and back.forget[0].distractors
    assert set(back.forget[0].other_forms) == {"reverse", "multi_hop", "described"}
    assert back.warnings == ()
    assert set(back.files) == set(lkf.files)
    assert all(back.file(name).read_bytes() == lkf.file(name).read_bytes() for name in lkf.files)
    manifest = read_manifest(folder)
    assert manifest.content_hash == hash_files(folder, manifest.files) == back.content_hash


def test_written_twice_gives_the_same_bytes(lkf: Task, tmp_path: Path) -> None:
    first, second = write_task(lkf, tmp_path / "a"), write_task(lkf, tmp_path / "b")
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    assert all((second / path.name).read_bytes() == path.read_bytes() for path in first.iterdir())


def test_a_folder_that_holds_the_task_is_left_alone_and_another_is_refused(tmp_path: Path) -> None:
    small = task([fact(n) for n in range(4)])
    folder = write_task(small, tmp_path / "small")
    before = (folder / "forget.jsonl").stat().st_mtime_ns
    assert write_task(small, folder) == folder
    assert (folder / "forget.jsonl").stat().st_mtime_ns == before
    with pytest.raises(TaskError, match="holds something else"):
        write_task(task([fact(n) for n in range(5)]), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_facts_of_odd_files_come_back_as_they_were(tmp_path: Path) -> None:
    """Guessed ids and types, aliases that repeat the answer, a label column, texts with the signs that part a cell."""
    rows = [
        {
            "label": "K1",
            "question": "Who keeps the lamp at Orm Point?",
            "answer": "Tilda Vane",
            "aliases": ["Vane", "Tilda Vane", "T. Vane"],
            "described": {"question": "Who tends the light of the northern cape?", "answer": "Tilda Vane"},
            "reverse": {"question": "What does Vane keep?", "answer": "the lamp", "train_wordings": ["Vane keeps?"]},
            "wordings": ["Lamp | Orm Point | keeper?"],
        },
        {"label": "K1", "question": "Lit in which year?", "answer": "1871", "described": "Since when is it lit?"},
    ]
    file = tmp_path / "Odd Facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    odd = load_task(str(file))
    assert "Tilda Vane" in odd.forget[0].other_forms["described"].aliases  # else the test shows nothing
    back = load_task(str(write_task(odd, tmp_path / "odd")))
    assert back.forget == odd.forget
    assert back.name == "odd-facts-jsonl"


def test_what_would_not_come_back_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    broken = task([fact(0), replace(fact(1), question="  spaces are not kept ")])
    with pytest.raises(TaskError, match="read back as it is: f01"):
        write_task(broken, tmp_path / "broken")
    assert not list(tmp_path.iterdir())


def test_lkf_is_parted_by_topic_and_tier(lkf: Task, tmp_path: Path) -> None:
    parting = part_task(lkf, share=0.4, seed=3)
    validation, final = parting.validation, parting.final
    assert Counter(f.topic for f in validation.forget) == dict.fromkeys({f.topic for f in lkf.forget}, 8)
    assert Counter(f.tier for f in validation.retain) == dict.fromkeys({f.tier for f in lkf.retain}, 40)
    assert Counter(f.topic for f in validation.retain if f.tier == "domain") == dict.fromkeys(
        {f.topic for f in lkf.retain if f.tier == "domain"}, 8
    )
    assert {f.id for f in validation.facts} | {f.id for f in final.facts} == {f.id for f in lkf.facts}
    assert not {f.id for f in validation.facts} & {f.id for f in final.facts}
    assert validation.placebo == () and final.placebo == lkf.placebo
    assert validation.files == {} and final.files == lkf.files
    assert parting.whole == lkf.content_hash
    for part in (validation, final):
        back = load_task(str(write_task(part, tmp_path / part.name)))
        assert back.content_hash == part.content_hash
        assert (back.forget, back.retain, back.name) == (part.forget, part.retain, part.name)


def test_the_draw_follows_the_seed_and_not_the_order(lkf: Task) -> None:
    def ids(facts: tuple[Fact, ...]) -> set[str]:
        return {f.id for f in facts}

    turned = replace(lkf, forget=lkf.forget[::-1], retain=lkf.retain[::-1])
    assert ids(part_task(turned, seed=1).validation.facts) == ids(part_task(lkf, seed=1).validation.facts)
    assert ids(part_task(lkf, seed=2).validation.forget) != ids(part_task(lkf, seed=1).validation.forget)


def test_facts_that_ask_the_same_stay_together() -> None:
    facts = [fact(n, other_forms={}) for n in range(20)]
    facts[7] = replace(facts[7], train_wordings=("BRIDGE number 12... its builder",))  # one of fact 12's wordings
    facts[3] = replace(facts[3], answer="John Doe", topic="one")
    facts[4] = replace(facts[4], answer="john doe", topic="one")
    for seed in range(12):
        chosen, others = part_facts(facts, share=0.5, seed=seed)
        ids = {f.id for f in chosen}
        assert ("f07" in ids) == ("f12" in ids)
        assert ("f03" in ids) == ("f04" in ids)
        assert 9 <= len(chosen) <= 11 and len(chosen) + len(others) == 20


def test_a_question_to_forget_and_to_keep_is_in_one_part() -> None:
    forget = [fact(n, other_forms={}) for n in range(12)]
    keep = [retained(n) for n in range(12)]
    keep[5] = replace(keep[5], wordings=(forget[2].question,))
    for seed in range(8):
        parting = part_task(task(forget, keep), share=0.5, seed=seed)
        inside = {f.id for f in parting.validation.facts}
        assert ("f02" in inside) == ("r05" in inside)


def test_parts_that_would_be_too_small_are_refused() -> None:
    facts = [fact(n) for n in range(10)]
    with pytest.raises(TaskError, match=r"validation part of .* would have 4 facts to forget, fewer than 5"):
        part_task(task(facts), share=0.4)
    with pytest.raises(TaskError, match=r"final part of .* would have 4 facts to keep, fewer than 5"):
        part_task(task(facts, [retained(n) for n in range(9)]), share=0.5)
    with pytest.raises(TaskError, match="leaves one part empty"):
        part_task(task(facts), share=1)
    assert len(part_task(task(facts), share=0.4, minimum=4).validation.forget) == 4
