"""What runs are called, from the command line's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.comparing.labels import groups_given, labels_of
from audit.errors import ConfigError

A, B = Path("runs/a"), Path("runs/b")


def test_folders_give_the_names_and_options_change_them() -> None:
    assert labels_of([A, B], []) == {A: "a", B: "b"}
    assert labels_of([A, B], ["JensUn=runs/a"]) == {A: "JensUn", B: "b"}
    assert labels_of([A, B], ["runs/b=second", "x = 1=runs/a"]) == {A: "x = 1", B: "second"}
    assert labels_of([Path("x/run"), Path("y/run")], []) == {Path("x/run"): "x/run", Path("y/run"): "y/run"}
    odd = Path("runs/lr=1e-5")
    assert labels_of([odd, B], ["name=runs/lr=1e-5"]) == {odd: "name", B: "b"}
    assert labels_of([odd, B], ["runs/lr=1e-5=name"]) == {odd: "name", B: "b"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["first"], "not LABEL=RUN"),
        (["first=runs/c"], "not LABEL=RUN"),
        (["=runs/a"], "empty"),
        (["x=runs/a", "y=runs/a"], "two labels"),
        (["x=runs/a", "x=runs/b"], "two runs are called 'x'"),
        (["b=runs/a"], "two runs are called 'b'"),
    ],
)
def test_labels_that_cannot_be_used(given: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        labels_of([A, B], given)


def test_groups() -> None:
    labels = {A: "a", B: "second"}
    assert groups_given(["m=runs/a,second"], labels) == {"m": ("a", "second")}
    for text in ("m", "m=", "=a", "m= , "):
        with pytest.raises(ConfigError, match="METHOD=RUN"):
            groups_given([text], labels)
    with pytest.raises(ConfigError, match="twice"):
        groups_given(["m=a", "m=second"], labels)
