"""Settings: presets, files and flags end in one configuration that repeats the run; all errors are told together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.config import AuditConfig, dump_config, resolve_config
from audit.errors import ConfigError
from audit.presets import PRESETS
from audit.probes import get_family


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_resolve_and_name_real_families(preset: str) -> None:
    config = resolve_config({"model": "m", "base": "b", "preset": preset})
    assert config.preset == preset
    assert [get_family(name).name for name in config.probes.families] == list(config.probes.families)


def test_the_full_preset_compares_replies_and_says_so_without_a_base() -> None:
    with pytest.raises(ConfigError, match="give --base or --reference-outputs"):
        resolve_config({"model": "m", "preset": "full"})


def test_paper_preset_is_the_published_protocol() -> None:
    probes = resolve_config({"model": "m", "preset": "paper"}).probes
    assert (probes.format, probes.max_new_tokens, probes.n_examples, probes.wordings) == ("raw", 50, 3, None)
    assert set(probes.families) == {"original", "paraphrase", "original_icr", "paraphrase_icr"}


def test_values_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: quick\nmodel: from-file\nprobes: {wordings: 7, max_new_tokens: 99}\nseed: 3\n")
    config = resolve_config({"seed": 4, "probes": {"max_new_tokens": None, "wordings": 2}}, file=file)
    assert (config.model, config.seed, config.preset) == ("from-file", 4, "quick")
    assert (config.probes.wordings, config.probes.max_new_tokens, config.probes.retain_facts) == (2, 99, 100)


@settings(max_examples=60, deadline=None)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    wordings=st.none() | st.integers(1, 20),
    seed=st.integers(0, 2**40),
    forget=st.text(min_size=1, max_size=20),
    args=st.dictionaries(
        st.text(min_size=1, max_size=5), st.integers() | st.booleans() | st.text(max_size=5), max_size=3
    ),
)
def test_the_dumped_configuration_repeats_the_run(
    tmp_path_factory: pytest.TempPathFactory,
    preset: str,
    wordings: int | None,
    seed: int,
    forget: str,
    args: dict[str, int | bool | str],
) -> None:
    config = resolve_config(
        {
            "model": "m",
            "base": "b",
            "preset": preset,
            "seed": seed,
            "forget": forget,
            "probes": {"wordings": wordings},
            "engine": {"args": args},
        }
    )
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    again = resolve_config({}, file=file)
    assert again == config and again.digest() == config.digest()


def test_another_setting_is_another_run() -> None:
    base = resolve_config({"model": "m"})
    for change in ({"seed": 1}, {"probes": {"max_new_tokens": 255}}, {"judges": ("rules", "other")}):
        assert resolve_config({"model": "m", **change}).digest() != base.digest()


def test_all_problems_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(
            {
                "model": "m",
                "responses": ("r",),
                "probes": {"n_examples": 0, "wordings": "few"},
                "scoring": {"confidence": 1.5},
                "polcy": "p.yaml",
            }
        )
    told = "\n".join(caught.value.problems)
    for word in ("probes.n_examples", "probes.wordings", "scoring.confidence", "polcy", "not both"):
        assert word in told
    assert len(caught.value.problems) == 5
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "nothing to audit"),
        ({"model": "m", "responses": ("r",)}, "not both"),
        ({"engine": {"name": "openai"}}, "--base-url"),
        ({"engine": {"name": "openai", "base_url": "u", "served_model": "m"}, "adapter": "a"}, "--adapter"),
        ({"model": "m", "judges": ("recorded",)}, "needs --responses"),
        ({"responses": ("r",), "judges": ("recorded", "rules")}, "stands alone"),
        ({"model": "m", "base_responses": ("r",)}, "--base PATH"),
        ({"model": "m", "judges": []}, "no judge"),
        ({"model": "m", "preset": "qick"}, "unknown preset"),
        ({"model": "m", "preset": ["quick"]}, "unknown preset"),
        ({"model": "m", "probes": {"families": []}}, "probes.families"),
        ({"model": "m", "probes": {"forms": []}}, "probes.forms"),
        ({"model": "m", "probes": 3}, "probes"),
        ({"model": "m", "judge_rule": "loudest"}, "judge_rule"),
        ({"model": "m", "scoring": {"min_known": 0}}, "scoring.min_known"),
    ],
)
def test_settings_that_cannot_be_used(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        resolve_config(values)


@pytest.mark.parametrize(
    "content", ["- a\n- b\n", "model: [unclosed\n", "model: m\n1: 2\n", "\tmodel: m", "probes: null\nmodel: m\n"]
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError):
        resolve_config({"model": "m"}, file=file)


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("c.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=name):
            resolve_config({"model": "m"}, file=tmp_path / name)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert resolve_config({"model": "m"}, file=tmp_path / "c.yaml") == resolve_config({"model": "m"})


def test_every_setting_survives_yaml() -> None:
    config = resolve_config({"model": "m"})
    assert yaml.safe_load(dump_config(config)).keys() == AuditConfig.model_fields.keys()
