"""The whole configuration: one section a stage, and the dataset table.

It imports settings classes only, so that a dry run stays quick.
"""

import inspect
import json
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field

from tabatlas.bundle.settings import BundleSettings
from tabatlas.errors import ConfigError
from tabatlas.explain.settings import ExplainSettings
from tabatlas.fetch.settings import PLAIN_NAME, DatasetRow, FetchSettings
from tabatlas.fetch.table import read_table
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.ingest.settings import IngestSettings
from tabatlas.integrate.settings import IntegrateSettings
from tabatlas.normalize.settings import NormalizeSettings
from tabatlas.pack.settings import PackSettings
from tabatlas.perturb.settings import PerturbSettings
from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.qc.settings import QCSettings
from tabatlas.report.settings import ReportSettings
from tabatlas.settings import StageSettings
from tabatlas.simulate.settings import SimulateSettings
from tabatlas.split.settings import SplitSettings

HEAD = (
    "# Every knob with its default, its meaning and [its limits]. Copy the lines that you change",
    "# into a file of your own. Generated: `tabatlas config > config/config.yaml`.",
    "# yaml-language-server: $schema=config.schema.json",
)
NO_BREAK = "\u00a0"  # keeps limits on one line
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


class Config(StageSettings):
    """Every knob of a run."""

    atlas: str = Field(
        pattern=PLAIN_NAME,
        description="Plain name of the atlas (letters, digits, `_`, `.`, `-`): its folder.",
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
    integrate: IntegrateSettings = IntegrateSettings()
    perturb: PerturbSettings = PerturbSettings()
    explain: ExplainSettings = ExplainSettings()
    bundle: BundleSettings = BundleSettings()
    report: ReportSettings = ReportSettings()

    def stage(self, name: str) -> dict[str, Any]:
        """The settings of one stage as plain JSON values."""
        return getattr(self, name).model_dump(mode="json", by_alias=True)


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
    screens = [row.dataset_id for row in config.perturb.datasets]
    check_ids(sorted([row.dataset_id for row in rows] + screens))
    return config, {row.dataset_id: row for row in sorted(rows, key=lambda row: row.dataset_id)}


def check_ids(ids: Sequence[str]) -> None:
    """Raise `ConfigError` unless every id names files of its own, on any file system."""
    seen: dict[str, str] = {}
    for name in ids:
        if name.lower() in seen:
            raise ConfigError(
                f"datasets: `{seen[name.lower()]}` and `{name}` name the same files, whatever "
                "their case. Give each dataset its own id."
            )
        seen[name.lower()] = name


def check_keys(path: Path) -> None:
    """Raise `ConfigError` where a YAML file gives a key twice: loaders silently take the last."""
    try:
        waiting = [yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error}).") from None
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{path} line {line}: `{key.value}` again; keep one of them.")
                seen.add(str(key.value))


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
    examples = {"atlas": "my_atlas", "datasets": "config/datasets.tsv"}
    return "\n".join([*HEAD, *describe_fields(Config, "", examples)]) + "\n"


def describe_fields(
    model: type[BaseModel], indent: str, examples: Mapping[str, str]
) -> Iterator[str]:
    """YAML lines of a settings class: a comment and a value for each field."""
    for name, field in model.model_fields.items():
        if not indent:
            yield ""
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            yield from comment(f"{field.description}{describe_limits(model, name)}", indent)
            value = examples.get(name, field.get_default(call_default_factory=True))
            yield f"{indent}{name}: {write_value(value)}"
        else:
            yield from comment(inspect.getdoc(section) or "", indent)
            yield f"{indent}{name}:"
            yield from describe_fields(section, indent + "  ", {})


def comment(text: str, indent: str) -> list[str]:
    """Comment lines of at most 99 characters."""
    start = f"{indent}# "
    lines = textwrap.wrap(
        text, 99, initial_indent=start, subsequent_indent=start, break_on_hyphens=False
    )
    return [line.replace(NO_BREAK, " ") for line in lines]


def write_value(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").rstrip("\n")  # "..." ends a document of one scalar


def describe_limits(model: type[BaseModel], name: str) -> str:
    """The limits of a field, as its JSON schema states them."""
    schema = model.model_json_schema()["properties"][name]
    found = []
    for option in [schema, *schema.get("anyOf", [])]:
        found += [f"{sign} {option[key]}" for key, sign in LIMITS.items() if key in option]
        if "enum" in option:
            found.append("one of " + ", ".join(map(str, option["enum"])))
    limits = "; ".join(found).replace(" ", NO_BREAK)
    return f" [{limits}]" if found else ""
