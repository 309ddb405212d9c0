import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tabatlas.config import (
    Config,
    check_keys,
    load_config,
    read_table,
    write_schema,
    write_value,
    write_yaml,
)
from tabatlas.errors import ConfigError
from tabatlas.fetch.settings import PLAIN_NAME, DatasetRow
from tabatlas.fetch.table import COLUMNS
from tabatlas.names import STAGES
from tabatlas.perturb.settings import ScreenRow
from tabatlas.settings import settings_class

CONFIG = Path(__file__).parents[1] / "config"
ROW = {"dataset_id": "a", "path": "a.h5ad"}


def config(*rows: dict[str, object], **sections: object) -> dict[str, object]:
    """A configuration as YAML gives it, of one dataset unless `rows` are given."""
    return {"atlas": "mine", "datasets": list(rows) or [ROW], **sections}


def explain(values: dict[str, object]) -> str:
    """The message about a wrong configuration."""
    with pytest.raises(ConfigError) as caught:
        load_config(values)
    assert caught.value.exit_code == 2
    return str(caught.value)


# what stands in config/


def test_config_yaml_is_generated() -> None:
    written = (CONFIG / "config.yaml").read_text()
    assert written == write_yaml(), "run `tabatlas config > config/config.yaml`"


def test_schema_is_generated() -> None:
    written = (CONFIG / "config.schema.json").read_text()
    assert written == write_schema(), "run `tabatlas config --schema > config/config.schema.json`"


def test_config_yaml_holds_every_default() -> None:
    values = yaml.safe_load(write_yaml())
    named = {key: values.pop(key) for key in ("atlas", "datasets")}
    assert Config.parse({**values, **named}, "config") == Config(**named)
    assert Config(**named).model_dump(mode="json") == {**values, **named}


def test_config_yaml_is_narrow() -> None:
    assert max(map(len, write_yaml().splitlines())) < 100


def test_config_has_a_section_per_stage() -> None:
    assert set(Config.model_fields) == {"atlas", "datasets", *STAGES}


def find_fields(model: type[BaseModel]) -> Iterator[tuple[str, str | None]]:
    """Name and description of each knob within a settings class."""
    for name, field in model.model_fields.items():
        section = settings_class(field.annotation)
        if section is None:
            yield f"{model.__name__}.{name}", field.description
        else:
            yield from find_fields(section)


def test_every_knob_says_what_it_means() -> None:
    knobs = dict(find_fields(Config))
    assert [name for name, text in knobs.items() if not (text and text.endswith("."))] == []


def test_dataset_table_is_empty_and_its_examples_are_sound(tmp_path: Path) -> None:
    path = CONFIG / "datasets.tsv"
    assert read_table(path) == []
    lines = path.read_text().split("\n")
    assert lines[2].split("\t") == list(COLUMNS)
    examples = tmp_path / "datasets.tsv"
    examples.write_text("\n".join(line.removeprefix("# ") for line in lines[2:]))
    assert len(read_table(examples)) == 3


@pytest.mark.parametrize("row", [DatasetRow, ScreenRow])
def test_readme_explains_every_column_of_a_dataset(row: type[BaseModel]) -> None:
    readme = (CONFIG / "README.md").read_text()
    table = [f"| `{name}` | {field.description} |" for name, field in row.model_fields.items()]
    assert "\n".join(table) in readme


def test_example_in_the_readme_is_sound() -> None:
    example = (CONFIG / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    parsed = Config.parse(yaml.safe_load(example), "config")
    assert parsed.fetch.cell_types == {"CD14+ Mono": "CL:0001054", "doublets": None}


def test_demo_config_is_sound() -> None:
    parsed, rows = load_config(yaml.safe_load((CONFIG / "demo.yaml").read_text()))
    assert parsed.atlas == "demo"
    assert all(row.simulated for row in rows.values())


@pytest.mark.parametrize("value", [None, True, 1, 1e-5, 2e20, "", "NO", "1e-5", [], ["a"], {}])
def test_written_value_reads_back(value: object) -> None:
    line = write_value(value)
    assert "\n" not in line
    assert yaml.safe_load(f"knob: {line}") == {"knob": value}


# loading


def test_rows_come_sorted_by_id() -> None:
    rows = load_config(config({**ROW, "dataset_id": "b"}, ROW))[1]
    assert list(rows) == ["a", "b"]


def test_rows_may_stand_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "datasets.tsv").write_text("dataset_id\tpath\na\ta.h5ad\n")
    values = {"atlas": "mine", "datasets": str(tmp_path / "datasets.tsv")}
    assert load_config(values)[1] == {"a": DatasetRow(**ROW)}


def test_settings_of_a_stage_are_plain_json() -> None:
    loaded, _ = load_config(config(split={"held_out_datasets": ["a"]}))
    assert json.loads(json.dumps(loaded.stage("split")))["held_out_datasets"] == ["a"]


def test_atlas_without_datasets_is_an_error() -> None:
    assert "no dataset in it. Add a row." in explain({"atlas": "mine", "datasets": []})
    table = str(CONFIG / "datasets.tsv")
    assert "datasets.tsv: no dataset in it" in explain({"atlas": "mine", "datasets": table})


def test_missing_dataset_table_is_named() -> None:
    assert "none.tsv: not a readable" in explain({"atlas": "mine", "datasets": "none.tsv"})


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("Ab", "aB")])
def test_two_datasets_with_one_name_are_an_error(names: tuple[str, str]) -> None:
    message = explain(config(*({**ROW, "dataset_id": name} for name in names)))
    assert "name the same files" in message
    assert all(f"`{name}`" in message for name in names)


WRONG_NAMES = {
    "outside": "../x",
    "absolute": "/x",
    "command": "a;b",
    "spaces": "a b",
    "flag": "-rf",
    "long": "x" * 300,
    "unicode": "größe",
    "empty": "",
    "hidden": ".x",
    "line": "a\n",
    "braces": "{x}",
}


@pytest.mark.parametrize("name", WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_id_that_is_no_plain_name_is_refused(name: str) -> None:
    message = explain(config({**ROW, "dataset_id": name}))
    assert message.startswith("config: `datasets.0.dataset_id: ")
    assert "Plain name of the dataset" in message
    assert "\n" not in message
    assert len(message) < 300
    assert "Plain name of the atlas" in explain({**config(), "atlas": name})


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "1", "x" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    assert name in load_config(config({**ROW, "dataset_id": name}))[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (config(pretrian={}), "`pretrian` is not a known key; did you mean `pretrain`?"),
        (config({**ROW, "celltype": "x"}), "did you mean `cell_type`?"),
        (config(pretrain={"architecture": {"n_d": 0}}), "`pretrain.architecture.n_d: 0`: Input"),
        (config(fetch={"cell_types": {"B": "B cell"}}), "`B: B cell` is no Cell Ontology id such"),
        (yaml.safe_load("atlas: a\ndatasets: x\nqc:"), "`qc: null`: .* Delete the key, or give"),
        (yaml.safe_load("atlas: a\ndatasets: x\nqc: {max_pct_mt: 5e0}"), "a dot before its exp"),
        ({"datasets": [ROW]}, "`atlas` is missing; give it a value"),
    ],
)
def test_wrong_setting_is_one_line_with_its_place(values: dict[str, object], message: str) -> None:
    found = explain(values)
    assert found.startswith("config: ")
    assert "\n" not in found
    prefix, _, hint = message.partition(".*")
    assert prefix in found
    assert hint in found


# keys that stand there twice


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("atlas: a\nqc: {}\natlas: b\n", 3),
        ("qc:\n  seed: 1\n  seed: 2\n", 3),
        ("datasets:\n  - {path: a, path: b}\n", 2),
    ],
)
def test_repeated_key_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine.yaml line {line}: `(atlas|seed|path)` again"):
        check_keys(path)


def test_same_key_in_two_sections_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text in ("", "qc: {seed: 1}\nsplit: {seed: 1}\n", textwrap.dedent(write_yaml())):
        path.write_text(text)
        check_keys(path)


@pytest.mark.parametrize("content", [None, b"a: [", b"\xff\xfea"])
def test_yaml_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine.yaml: not a readable YAML file"):
        check_keys(path)


def test_plain_names_are_safe_in_a_shell_and_a_path() -> None:
    assert not set("/ ;&|$`'\"{}*?~\\\n") & set(PLAIN_NAME.replace("{0,63}$", ""))
