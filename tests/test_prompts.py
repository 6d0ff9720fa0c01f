"""Prompt files: every bundled one renders; what is wrong with one is told with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.errors import ConfigError
from audit.fingerprint import text_file_digest
from audit.prompts import PromptFile, load_prompt, render_text
from audit.resources import resource


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_bundled_prompts_of_probes_load_and_are_named() -> None:
    for path in sorted(resource("prompts", "probes").glob("*.md")):
        prompt = load_prompt("probes", path.name)
        assert prompt.name == path.stem and prompt.digest == text_file_digest(path)
        assert "What?" in prompt.render(question="What?", examples=[])


def test_raw_prompt_text_to_the_letter() -> None:
    text = load_prompt("probes", "raw.v1.md").render(
        question="Who {{ was }} it?", examples=[{"question": "A?", "answer": "b"}, {"question": "C?", "answer": "<d>"}]
    )
    assert text == (
        "Answer each question in a few words.\n\nQuestion: A?\nAnswer: b\n\nQuestion: C?\nAnswer: <d>\n\n"
        "Question: Who {{ was }} it?\nAnswer:"
    )


def test_a_name_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    prompt = PromptFile(write(tmp_path / "p.md", "---\nid: p\nversion: 1\n---\n{{ question }} {{ nothing }}\n"))
    with pytest.raises(ConfigError, match="nothing"):
        prompt.render(question="q")


def test_a_prompt_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    prompt = PromptFile(write(tmp_path / "p.md", "---\nid: p\nversion: 1\n---\n{{ x.__class__.__mro__ }}\n"))
    with pytest.raises(ConfigError):
        prompt.render(x="text")


@pytest.mark.parametrize(
    "text",
    [
        "no front matter",
        "---\nid: p\n",
        "---\nid: [p\n---\nbody\n",
        "---\n- a\n---\nbody\n",
        "---\nid: p\n---\nbody\n",
        "---\nid: p\nversion: 1\n---\n{% for x in %}\n",
    ],
)
def test_files_that_are_no_prompts(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.md"):
        PromptFile(write(tmp_path / "p.md", text))


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    one = PromptFile(write(tmp_path / "a.md", "---\nid: p\nversion: 1\n---\nbody\n"))
    two = PromptFile(write(tmp_path / "b.md", "---\nid: p\nversion: 1\n---\nbody!\n"))
    assert one.name == two.name and one.digest != two.digest


def test_render_text_takes_values_as_data() -> None:
    assert render_text("{{ a }}", a="{{ b }}") == "{{ b }}"
