"""Prices are what the table says, and a typo in a table is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import ConfigError
from audit.remote.prices import Price, cost_of, load_prices


def test_the_bundled_table() -> None:
    prices = load_prices()
    assert prices.of("openai", "gpt-4o") == Price(input=2.5, output=10.0, cached_input=1.25, batch=0.5)
    assert prices.of("gemini", "gemini-2.5-flash") == Price(input=0.3, output=2.5, cached_input=0.03)
    for models in prices.table.values():
        for model, price in models.items():
            assert 0 < price.input <= price.output, model
            assert price.cached_input is None or price.cached_input <= price.input / 2, model


def test_snapshots_have_the_price_of_their_name_and_nothing_else_is_guessed() -> None:
    prices = load_prices()
    assert prices.of("openai", "gpt-4o-2024-08-06") == prices.of("openai", "gpt-4o")
    assert prices.of("openai", "gpt-4o-2024-05-13") != prices.of("openai", "gpt-4o")  # listed itself: it costs more
    unknown = ("gpt-4o-mini-search", "gpt-4", "GPT-4o", "ft:gpt-4o-2024-08-06:me", "gpt-4o-20240806", "2024-08-06", "")
    assert [prices.of("openai", model) for model in unknown] == [None] * len(unknown)
    assert prices.of("gemini", "gpt-4o") is None
    assert prices.of("gemini", "gemini-2.5-flash-preview-09-2025") is None
    assert prices.of("elsewhere", "gpt-4o") is None


def test_a_users_file_lies_over_the_bundled_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "openai:\n"
        "  gpt-4o: {input: 1, output: 2}\n"
        "  my-model: {input: 0, output: 0.5, batch: 1}\n"
        "mine:\n"
        "  m: {input: 3, output: 4}\n"
    )
    mine, bundled = load_prices(file), load_prices()
    assert mine.of("openai", "gpt-4o") == Price(input=1.0, output=2.0)
    assert mine.of("openai", "my-model") == Price(input=0.0, output=0.5, batch=1.0)
    assert mine.of("mine", "m") == Price(input=3.0, output=4.0)
    assert mine.of("openai", "gpt-4o-mini") == bundled.of("openai", "gpt-4o-mini")
    assert mine.digest != bundled.digest == load_prices().digest
    file.write_text("{}")
    assert load_prices(file).digest == bundled.digest


def test_every_mistake_is_named_with_file_entry_and_field(tmp_path: Path) -> None:
    file = tmp_path / "typos.yaml"
    file.write_text(
        "openai:\n"
        "  a: {inputt: 1, output: 2}\n"
        "  b: {input: '1', output: -2}\n"
        "  c: {input: 1, output: .nan, batch: 0}\n"
        "  d: 3\n"
        "  e: {input: true, output: 1, surcharge: 2}\n"
        "gemni:\n"
        "  f: {input: 1, output: 2}\n"
        "gemini: [1]\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_prices(file)
    problems = caught.value.problems
    assert all(problem.startswith(f"{file}: ") for problem in problems)
    said = [problem.removeprefix(f"{file}: ") for problem in problems]
    assert "openai: a: inputt: unknown field; did you mean input?" in said
    assert "openai: a: input: is missing" in said
    assert "openai: b: input: input should be a valid number, not '1'" in said
    assert "openai: b: output: input should be greater than or equal to 0, not -2" in said
    assert any(problem.startswith("openai: c: output: input should be a finite number") for problem in said)
    assert "openai: c: batch: input should be greater than 0, not 0" in said
    assert "openai: d: expected prices such as {input: 1.0, output: 2.0}, got a int" in said
    assert "openai: e: input: input should be a valid number, not True" in said
    assert "openai: e: surcharge: unknown field; known: input, output, cached_input, batch" in said
    assert "gemni: no such provider; did you mean gemini?" in said
    assert "gemini: expected model -> prices, got a list" in said
    assert len(said) == 11 and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "openai:\n  m: {input: 1, output: 2}\n  m: {input: 3, output: 4}\n",
            "bad.yaml:3 is not valid YAML: 'm' is given",
        ),
        ("openai:\n  m: {input: 1, output: 2\n", r"bad.yaml:\d is not valid YAML"),
        ("openai: {m: !!python/object:x {}}", "not valid YAML: could not determine a constructor"),
        ("? [a]\n: 1\n", "a name must be plain text"),
        ("", "expected provider -> model -> prices, got nothing"),
        ("- 1\n", "expected provider -> model -> prices, got a list"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_prices(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_prices(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prices(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prices(tmp_path / "bytes.yaml")


def test_a_name_that_yaml_reads_as_a_date_is_refused_until_it_is_quoted(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("openai:\n  2024-08-06: {input: 1, output: 2}\n")
    with pytest.raises(ConfigError, match="plain text"):
        load_prices(file)
    file.write_text("openai:\n  '2024-08-06': {input: 1, output: 2}\n")
    assert load_prices(file).of("openai", "2024-08-06") == Price(input=1.0, output=2.0)


def test_costs() -> None:
    price = Price(input=2.0, output=8.0, cached_input=0.5, batch=0.5)
    million = 1_000_000
    assert cost_of(price, million, 0) == pytest.approx(2.0)
    assert cost_of(price, 0, million) == pytest.approx(8.0)
    assert cost_of(price, million, million, million // 2) == pytest.approx(1.0 + 0.25 + 8.0)
    assert cost_of(price, million, million, batch=True) == pytest.approx(1.0 + 4.0)
    assert cost_of(price, million, 0, million, batch=True) == pytest.approx(0.5)  # no lower than its own price
    dear = Price(input=2.0, output=8.0, cached_input=1.5)
    assert cost_of(dear, million, 0, million, batch=True) == pytest.approx(1.0)
    uncached = Price(input=2.0, output=8.0)
    assert cost_of(uncached, million, 0, million) == pytest.approx(2.0)
    assert cost_of(price, million, 0, 2 * million) == pytest.approx(2.0)  # a count that cannot be: as if not cached
    assert cost_of(price, -5, -5, -5) == 0.0


amounts = st.floats(0, 100)
counts = st.integers(0, 10**7)


@given(amounts, amounts, st.none() | amounts, st.floats(0.01, 1), counts, counts, counts)
def test_a_batch_or_a_cache_never_costs_more(
    given_in: float, given_out: float, cached: float | None, factor: float, prompt: int, completion: int, hits: int
) -> None:
    low = None if cached is None else min(cached, given_in)
    price = Price(input=given_in, output=given_out, cached_input=low, batch=factor)
    full = cost_of(price, prompt, completion)
    tolerance = 1e-9 + full * 1e-9
    assert cost_of(price, prompt, completion, min(hits, prompt)) <= full + tolerance
    assert cost_of(price, prompt, completion, min(hits, prompt), batch=True) <= full + tolerance
    assert cost_of(price, prompt, completion, batch=True) == pytest.approx(full * factor, abs=1e-9)


def test_one_mistake_in_every_row_is_told_a_few_times_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("openai:\n" + "".join(f"  m{i}: {{inptu: 1, output: 2}}\n" for i in range(30)))
    with pytest.raises(ConfigError, match="did you mean input") as caught:
        load_prices(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6 and lines[-1] == f"and {len(caught.value.problems) - 5} more of this file"
    assert len(caught.value.problems) >= 30
