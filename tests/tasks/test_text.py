"""Does a question hold its answer: by whole words, whatever the spelling."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import TaskError
from audit.tasks.hub import load_rows
from audit.tasks.readers import read_rows
from audit.tasks.text import given_away, holds, is_option

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("Did Ægir ram her?", "Aegir", True),
        ("The port of Seydisfjordur", "Seyðisfjörður", True),
        ("a 73-second flight of 73 seconds", "73 Seconds", True),
        ("173 seconds", "73 seconds", False),
        ("Walking down Thames way", "the Thames", True),
        ("The Thameside", "the Thames", False),
        ("Why is the O-ring so named?", "O", True),
        ("He said ’HELP!’ twice", "HELP!", True),
        ("C++ or Pascal?", "C++", True),
        ("Is it + or -?", "+", True),
        ("", "x", False),
        ("anything", "", False),
    ],
)
def test_holds(text: str, answer: str, expected: bool) -> None:
    assert holds(text, answer) is expected


@given(WORDS, WORDS, WORDS)
def test_a_run_of_words_is_held_and_found_in_any_case(before: list[str], answer: list[str], after: list[str]) -> None:
    text = " ".join([*before, *answer, *after])
    assert holds(text.upper(), " ".join(answer))
    assert given_away(text, ["zzz", " ".join(answer)]) == " ".join(answer)


@given(WORDS, WORDS)
def test_words_that_are_not_there_are_not_held(text: list[str], answer: list[str]) -> None:
    assert not holds(" ".join(text), " ".join([*answer, "zz"]))


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Left or right?", "right", True),
        ("Left or right?", "left", True),
        ("Is it oak, larch or pine?", "oak", True),
        ("Is it oak, larch or pine?", "larch", True),
        ("Is the answer a dog or a cat?", "cat", True),
        ("Which larch bridge stands at Sallow?", "larch", False),
        ("Who was Tilda Vane?", "Tilda Vane", False),
    ],
)
def test_options(question: str, answer: str, expected: bool) -> None:
    assert is_option(question, answer) is expected


def test_missing_libraries_are_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match="Parquet files need pyarrow") as caught:
        read_rows(tmp_path / "f.parquet")
    assert "unlearning-audit[hub]" in caught.value.hint
    with pytest.raises(TaskError, match="hub data sets need `datasets`") as caught:
        load_rows("org/set", None, None, shown="hf:org/set")
    assert "unlearning-audit[hub]" in caught.value.hint


def test_csv_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.tsv"
    path.write_text('question\tanswer\n"Two\nlines?"\tA\n\nOne?\tB\n', encoding="utf-8-sig")
    rows, problems = read_rows(path)
    assert problems == [] and [(r.line, r.fields["answer"]) for r in rows] == [(2, "A"), (5, "B")]
