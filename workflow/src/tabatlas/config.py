"""The whole configuration: one section a stage, and the dataset table.

It imports settings classes only, so that a dry run stays quick.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field

from tabatlas.bundle.settings import BundleSettings
from tabatlas.errors import ConfigError
from tabatlas.fetch.settings import PLAIN_NAME, DatasetRow, FetchSettings
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.ingest.settings import IngestSettings
from tabatlas.normalize.settings import NormalizeSettings
from tabatlas.pack.settings import PackSettings
from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.qc.settings import QCSettings
from tabatlas.report.settings import ReportSettings
from tabatlas.settings import StageSettings, settings_class
from tabatlas.simulate.settings import SimulateSettings
from tabatlas.split.settings import SplitSettings


class Config(StageSettings):
    """Every knob of a run."""

    atlas: str = Field(
        pattern=PLAIN_NAME, description="Plain name of the atlas; its results get this folder."
    )
    datasets: str | list[DatasetRow] = Field(
        description="Path of the dataset table (TSV), or its rows."
    )
    simulate: SimulateSettings = SimulateSettings()
    fetch: FetchSettings = FetchSettings()
    qc: QCSettings = QCSettings()
    normalize: NormalizeSettings = NormalizeSettings()
    ingest: IngestSettings = IngestSettings()
    split: SplitSettings = SplitSettings()
    pack: PackSettings = PackSettings()
    pretrain: PretrainSettings = PretrainSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    bundle: BundleSettings = BundleSettings()
    report: ReportSettings = ReportSettings()

    def stage(self, name: str) -> dict[str, Any]:
        """The settings of one stage as plain JSON values."""
        return getattr(self, name).model_dump(mode="json")


def load_config(values: Mapping[str, Any]) -> tuple[Config, dict[str, DatasetRow]]:
    """Validate a configuration as YAML gives it, and the dataset table it names.

    Returns the config and the rows by `dataset_id`, sorted. Raises `ConfigError`.
    """
    config = Config.parse(values, "config")
    rows = config.datasets
    if isinstance(rows, str):
        rows = read_table(Path(rows))
    if not rows:
        raise ConfigError(f"datasets: {config.datasets}: no dataset in it. Add a row.")
    ids = [row.dataset_id for row in rows]
    # Names of files: two that differ only in case are one file on some systems.
    folded = [name.lower() for name in ids]
    for name in ids:
        if folded.count(name.lower()) > 1:
            raise ConfigError(f"datasets: `{name}` stands there twice; give each its own id.")
    return config, {row.dataset_id: row for row in sorted(rows, key=lambda row: row.dataset_id)}


def read_table(path: Path) -> list[DatasetRow]:
    """Read the dataset table: tab-separated, a header of `DatasetRow` keys, `#` comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"datasets: {path}: cannot be read ({error}).") from None
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    table = list(csv.reader((line for _, line in numbered), delimiter="\t"))
    rows = []
    for (number, _), cells in zip(numbered[1:], table[1:], strict=True):
        place = f"{path} line {number}"
        if len(cells) > len(table[0]):
            raise ConfigError(f"{place}: {len(cells)} cells, but the header has {len(table[0])}.")
        values = {key: parse_cell(cell) for key, cell in zip(table[0], cells, strict=False) if cell}
        rows.append(DatasetRow.parse(values, place))
    return rows


def parse_cell(cell: str) -> Any:
    """`{constant: x}` as in YAML; anything else is text, whatever it looks like."""
    return yaml.load(cell, yaml.BaseLoader) if cell.startswith("{") else cell


def run(
    schema: Annotated[bool, "print the JSON schema instead"] = False,
) -> None:
    """Print every knob as YAML, or the JSON schema of the config."""
    sys.stdout.write(write_schema() if schema else write_yaml())


def write_schema() -> str:
    """JSON schema of the configuration."""
    return json.dumps(Config.model_json_schema(), indent=1) + "\n"


def write_yaml() -> str:
    """Every knob with its default, limits and meaning, as YAML."""
    lines = [
        "# Every knob with its default. Copy this file, keep what you change, delete the rest.",
        "# Generated from the settings classes: `tabatlas config > config/config.yaml`.",
        "",
    ]
    examples = {"atlas": "my_atlas", "datasets": "config/datasets.tsv"}
    return "\n".join([*lines, *describe_fields(Config, "", examples)]) + "\n"


def describe_fields(
    model: type[BaseModel], indent: str, examples: Mapping[str, Any]
) -> Iterator[str]:
    """YAML lines of a settings class: a comment and a value for each field."""
    for name, field in model.model_fields.items():
        nested = settings_class(field.annotation)
        if nested is not None and name not in examples:
            yield f"{indent}{name}:"
            yield from describe_fields(nested, indent + "  ", {})
            continue
        default = field.get_default(call_default_factory=True)
        value = examples.get(name, default)
        yield f"{indent}# {field.description}{describe_limits(model, name)}"
        yield f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}"


def describe_limits(model: type[BaseModel], name: str) -> str:
    """The limits of a field, as its JSON schema states them."""
    schema = model.model_json_schema()["properties"][name]
    options = [schema, *schema.get("anyOf", [])]
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {option[key]:g}" for option in options for key, sign in limits.items() if key in option]
    found += ["one of " + ", ".join(map(str, option["enum"])) for option in options if "enum" in option]
    return f" [{'; '.join(found)}]" if found else ""
