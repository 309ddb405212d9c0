"""Settings: frozen pydantic classes that refuse what they do not know, with one clear message."""

import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tabatlas.errors import ConfigError


class StageSettings(BaseModel):
    """Base of every settings class: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], place: str) -> Self:
        """Validate `values` as they come from YAML or JSON.

        Raises `ConfigError`, one line per wrong value, each with `place` and its key.
        """
        try:
            # JSON mode: a list may fill a tuple, everything else stays strict.
            return cls.model_validate_json(json.dumps(values, default=str))
        except TypeError as error:
            raise ConfigError(f"{place}: a key is no text ({error}). Quote it.") from None
        except ValidationError as error:
            lines = [f"{place}: {line}" for line in explain_problems(cls, error.errors())]
            raise ConfigError("\n".join(lines)) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a settings file as `rule settings` writes it."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a readable JSON settings file ({error}).") from None
        return cls.parse(values, str(path))


@dataclass(frozen=True)
class Location:
    """Where a value stands: its keys, the class that lies there (or None) and its field."""

    keys: tuple[str, ...]
    model: type[BaseModel] | None
    field: FieldInfo | None


def explain_problems(model: type[BaseModel], problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per wrong value.

    Of a value that may be one thing or another, pydantic reports what each of them misses; the
    line speaks of the one that was meant: the deepest, else the first.
    """
    found: dict[tuple[str, ...], str] = {}
    for problem in problems:
        keys, line = explain(model, problem)
        found.setdefault(keys, line)
    return [
        line
        for keys, line in found.items()
        if not any(other[: len(keys)] == keys for other in found if other != keys)
    ]


def explain(model: type[BaseModel], problem: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The keys of one pydantic problem, and `key`: what is wrong; what to do."""
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        parent = locate(model, problem["loc"][:-1])
        keys = (*parent.keys, str(problem["loc"][-1]))
        return keys, f"`{'.'.join(keys)}` is not a known key; {suggest_key(keys[-1], parent.model)}"
    location = locate(model, problem["loc"])
    where = ".".join(location.keys)
    if kind == "missing":
        return location.keys, f"`{where}` is missing; give it a value."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if kind == "string_pattern_mismatch" and location.field is not None:
        message = f"not allowed here. It means: {location.field.description}".rstrip(".")
    line = f"`{where}: {shorten(value)}`" if where else shorten(value)
    return location.keys, f"{line}: {message}.{suggest_value(value, kind)}"


def locate(model: type[BaseModel], loc: Sequence[int | str]) -> Location:
    """Follow a pydantic location; names of union members, which it holds too, are no keys."""
    inside: type[BaseModel] | None = model
    field: FieldInfo | None = None
    keys: list[str] = []
    for part in loc:
        if inside is not None and part in inside.model_fields:
            field = inside.model_fields[part]
            inside = settings_class(field.annotation)
        elif isinstance(part, str) and typing.get_origin(field and field.annotation) is not dict:
            continue
        keys.append(str(part))
    return Location(tuple(keys), inside, field)


def suggest_key(key: str, model: type[BaseModel] | None) -> str:
    """The known key that is most like a wrong one, else all of them."""
    known = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}."


def suggest_value(value: Any, kind: str) -> str:
    """What to do about a value that YAML made something else of."""
    if isinstance(value, bool):
        return " Quote it if it is meant as text."
    if value is None:
        return " Delete the key, or give it a value."
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return " Write a number without quotes, with a dot before its exponent (1.0e-4)."
    return ""


def shorten(value: Any) -> str:
    """A value as JSON on one line of bounded length."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `list[Row] | Path`, or None."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (settings_class(part) for part in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)
