"""What a call costs: a table that users can edit. A model that is not in it has no known price, and none is guessed."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.errors import ConfigError
from audit.resources import resource
from audit.types import Record

PER_TOKENS = 1_000_000
#: Problems of one file that are told; one field misspelt in every row is one mistake.
MOST_TOLD = 5
_SNAPSHOT = re.compile(r"(.+)-\d{4}-\d{2}-\d{2}")


class Price(Record):
    """US dollars per million tokens of one model."""

    input: float
    output: float
    """Tokens of thoughts, where a model has them, are billed as output."""
    cached_input: float | None = None
    """Prompt tokens that the provider had in its cache; None: billed as input."""
    batch: float = 0.5
    """Factor on input and output where the provider's batch interface is used."""


class Prices(Record):
    """Prices by provider and model."""

    table: dict[str, dict[str, Price]]

    def of(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None where it is not known.

        A dated snapshot (gpt-4o-2024-08-06) that is not listed itself has the price of its name (gpt-4o).
        """
        models = self.table.get(provider, {})
        if model in models:
            return models[model]
        dated = _SNAPSHOT.fullmatch(model)
        return models.get(dated[1]) if dated else None

    @property
    def digest(self) -> str:
        """Hash of all prices, 32 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode(self.table, order="deterministic")).hexdigest()[:32]


def cost_of(
    price: Price, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0, batch: bool = False
) -> float:
    """US dollars of one call. `prompt_tokens` include the cached ones, as both providers count them.

    In a batch, cached tokens cost the lower of their own price and half the input's: not every provider halves them
    again, so the figure errs upward. Counts below zero, and more cached tokens than prompt tokens, are taken as none.
    """
    factor = price.batch if batch else 1.0
    prompt, completion = max(0.0, prompt_tokens), max(0.0, completion_tokens)
    cached = cached_tokens if 0 <= cached_tokens <= prompt else 0.0
    cached_price = price.input * factor
    if price.cached_input is not None:
        cached_price = min(price.cached_input, cached_price)
    dollars = (prompt - cached) * price.input * factor + cached * cached_price + completion * price.output * factor
    return dollars / PER_TOKENS


def load_prices(path: Path | None = None) -> Prices:
    """The bundled table, and over it, model by model, a user's file of the same form.

    Raises ConfigError that lists every problem with file, entry and field.
    """
    table = _load(resource("prices.yaml"), ())
    if path is not None:
        for provider, models in _load(path, tuple(table)).items():
            table.setdefault(provider, {}).update(models)
    return Prices(table=table)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    batch: float = Field(default=0.5, gt=0, le=1)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: the first price would be lost without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float):
            raise yaml.constructor.ConstructorError(None, None, "a name must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _load(path: Path, known: tuple[str, ...]) -> dict[str, dict[str, Price]]:
    hint = "the form of an entry stands at the top of the bundled prices.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the price file {path} cannot be read: {error}", hint=hint) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"the price file {where} is not valid YAML: {said}", hint=hint) from error
    problems: list[str] = []
    table: dict[str, dict[str, Price]] = {}
    if not isinstance(content, dict):
        problems.append(f"{path}: expected provider -> model -> prices, got {_kind(content)}")
        content = {}
    for provider, models in content.items():
        near = difflib.get_close_matches(str(provider).lower(), known, n=1, cutoff=0.7)
        if provider not in known and near:
            problems.append(f"{path}: {provider}: no such provider; did you mean {near[0]}?")
        elif not isinstance(models, dict):
            problems.append(f"{path}: {provider}: expected model -> prices, got {_kind(models)}")
        else:
            table[str(provider)] = {
                str(model): price
                for model, entry in models.items()
                if (price := _price(f"{path}: {provider}: {model}", entry, problems)) is not None
            }
    if problems:
        more = [f"and {len(problems) - MOST_TOLD} more of this file"] if len(problems) > MOST_TOLD else []
        raise ConfigError("\n".join([*problems[:MOST_TOLD], *more]), hint=hint, problems=tuple(problems))
    return table


def _price(where: str, entry: Any, problems: list[str]) -> Price | None:
    if not isinstance(entry, Mapping):
        problems.append(f"{where}: expected prices such as {{input: 1.0, output: 2.0}}, got {_kind(entry)}")
        return None
    try:
        return Price(**_Entry.model_validate({str(name): value for name, value in entry.items()}).model_dump())
    except ValidationError as error:
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                near = difflib.get_close_matches(field.lower(), _Entry.model_fields, n=1, cutoff=0.5)
                known = ", ".join(_Entry.model_fields)
                said = "unknown field; " + (f"did you mean {near[0]}?" if near else f"known: {known}")
            elif problem["type"] == "missing":
                said = "is missing"
            else:
                said = f"{problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}"
            problems.append(f"{where}: {field}: {said}")
        return None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
