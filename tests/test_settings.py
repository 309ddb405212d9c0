import json
import math
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from tabatlas.errors import ConfigError
from tabatlas.settings import StageSettings


class Constant(StageSettings):
    constant: str


class Part(StageSettings):
    learning_rate: float = Field(0.1, gt=0)
    n_steps: int = Field(3, ge=1, le=10)
    word: str = Field("plain", pattern="^[a-z]+$", description="A word of small letters.")
    kind: Literal["this", "that"] = "this"
    names: tuple[str, ...] = ()
    column: str | Constant | None = None
    table: dict[str, str | None] = Field(default_factory=dict)


class Whole(StageSettings):
    part: Part = Part()
    rows: str | list[Part] = ""
    needed: int


def explain(**values: object) -> str:
    """The message about `values`, without its place."""
    with pytest.raises(ConfigError) as caught:
        Whole.parse({"needed": 1, **values}, "config")
    assert caught.value.exit_code == 2
    return str(caught.value).removeprefix("config: ")


def test_values_of_yaml_become_settings() -> None:
    whole = Whole.parse({"part": {"names": ["a", "b"], "learning_rate": 1}, "needed": 2}, "config")
    assert whole.part.names == ("a", "b")
    assert whole.part.n_steps == 3


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Part().n_steps = 4


def test_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    assert explain(part={"learning_rat": 1}) == (
        "`part.learning_rat` is not a known key; did you mean `learning_rate`?"
    )


def test_unknown_key_like_no_other_is_refused_with_all_of_them() -> None:
    assert explain(xyz=1) == "`xyz` is not a known key; known keys: part, rows, needed."


def test_unknown_key_within_a_row_gets_the_keys_of_a_row() -> None:
    assert explain(rows=[{}, {"n_step": 1}]) == (
        "`rows.1.n_step` is not a known key; did you mean `n_steps`?"
    )


def test_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^config: `needed` is missing; give it a value\.$"):
        Whole.parse({}, "config")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"learning_rate": -0.1}, "`part.learning_rate: -0.1`: Input should be greater than 0."),
        ({"n_steps": 11}, "`part.n_steps: 11`: Input should be less than or equal to 10."),
        ({"n_steps": "3"}, "`part.n_steps: \"3\"`: Input should be a valid integer. Write a number "
         "without quotes, with a dot before its exponent (1.0e-4)."),
        ({"n_steps": 3.0}, "`part.n_steps: 3.0`: Input should be a valid integer."),
        ({"word": False}, "`part.word: false`: Input should be a valid string. Quote it if it is "
         "meant as text."),
        ({"word": "../x"}, "`part.word: \"../x\"`: not allowed here. It means: A word of small "
         "letters."),
        ({"kind": "other"}, "`part.kind: \"other\"`: Input should be 'this' or 'that'."),
        ({"names": "a"}, "`part.names: \"a\"`: Input should be a valid array."),
        ({"learning_rate": math.nan}, "`part.learning_rate: NaN`: Input should be a finite "
         "number."),
        ({"table": {"B": 5}}, "`part.table.B: 5`: Input should be a valid string."),
        ({"column": 5}, "`part.column: 5`: Input should be a valid string."),
        ({"column": {"constan": "x"}}, "`part.column.constan` is not a known key; did you mean "
         "`constant`?"),
    ],
)  # fmt: skip
def test_wrong_value_is_named_with_its_place(part: dict[str, object], message: str) -> None:
    assert message in explain(part=part).split("\nconfig: ")


def test_empty_section_is_an_error_that_says_what_to_do() -> None:
    assert explain(part=None).endswith("Delete the key, or give it a value.")


def test_each_wrong_value_has_a_line() -> None:
    lines = explain(part={"n_steps": 0, "learning_rate": 0}, rows=5).split("\n")
    assert len(lines) == 3


def test_long_values_are_cut() -> None:
    assert len(explain(part={"word": "X" * 10_000})) < 200


def test_line_breaks_in_values_stay_escaped() -> None:
    assert "\n" not in explain(part={"word": "a\nb"})


def test_key_that_is_no_text_is_an_error() -> None:
    assert explain(part={(1, 2): 3}).startswith("a key is no text")


def test_settings_that_are_no_mapping_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^config: \[1\]: Input should be an object"):
        Whole.parse([1], "config")


def test_settings_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps({"word": "blue"}))
    assert Part.read(path).word == "blue"


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_settings_file_that_cannot_be_read_is_an_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "part.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"part.json: not a readable JSON settings file"):
        Part.read(path)
