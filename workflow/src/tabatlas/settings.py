"""Settings: frozen pydantic classes that refuse what they do not know, with one clear message."""

import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

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
        except ValidationError as error:
            lines = [f"{place}: {explain(cls, problem)}" for problem in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a settings file as `rule settings` writes it."""
        try:
            values = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a readable JSON settings file ({error}).") from None
        return cls.parse(values, str(path))


def explain(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """One pydantic problem as `key: what is wrong; what to do`."""
    *parents, key = problem["loc"] or ("",)
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(field_names(model, parents))
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}."
        return f"`{where}` is not a known key; {hint}"
    if problem["type"] == "missing":
        return f"`{where}` is missing; give it a value."
    value = problem["input"]
    hint = " Quote it if it is meant as text." if isinstance(value, bool) else ""
    return f"`{where}: {json.dumps(value, default=str)}`: {problem['msg']}.{hint}"


def field_names(model: type[BaseModel], parents: list[Any]) -> list[str]:
    """Names of the fields of the settings class that lies at `parents` within `model`."""
    for name in parents:
        field = model.model_fields.get(str(name))
        if field is None:
            continue  # an index into a list, or a key of a mapping
        found = settings_class(field.annotation)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `list[Row] | Path`, or None."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (settings_class(part) for part in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)
