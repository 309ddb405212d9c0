"""The dataset table: a tab-separated file whose columns are the fields of `DatasetRow`."""

import csv
import difflib
from pathlib import Path
from typing import Any

import yaml

from tabatlas.errors import ConfigError
from tabatlas.fetch.settings import DatasetRow

COLUMNS = tuple(DatasetRow.model_fields)


def read_table(path: Path) -> list[DatasetRow]:
    """Read a dataset table: a header, a row per dataset; `#` starts a line that is a comment.

    Raises `ConfigError` with the number of the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable dataset table ({error}).") from None
    lines = [
        (f"{path} line {number}", line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.startswith("#")
    ]
    table = [(place, split_cells(line, place)) for place, line in lines]
    if not table:
        raise ConfigError(f"{path}: no header in it. Its columns are {', '.join(COLUMNS)}.")
    header = check_header(*table[0])
    return [parse_row(cells, header, place) for place, cells in table[1:]]


def split_cells(line: str, place: str) -> list[str]:
    """The cells of a line without the empty ones at its end, which spreadsheets add."""
    try:
        cells = next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error as error:
        raise ConfigError(f'{place}: {error}. Close every `"`, or leave it out.') from None
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def check_header(place: str, header: list[str]) -> list[str]:
    """The header, if it names known columns once each and the two that every dataset needs."""
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(COLUMNS)}."
            raise ConfigError(f"{place}: the header names `{name}`, no known column; {hint}")
        if header.count(name) > 1:
            raise ConfigError(f"{place}: the header names `{name}` twice; keep one.")
    for name in ("dataset_id", "path"):
        if name not in header:
            raise ConfigError(f"{place}: the header lacks `{name}`; separate columns by tabs.")
    return header


def parse_row(cells: list[str], header: list[str], place: str) -> DatasetRow:
    """One dataset. An empty cell means that nothing is said."""
    if len(cells) > len(header):
        raise ConfigError(
            f"{place}: {len(cells)} cells, but the header has {len(header)}. Remove a tab."
        )
    named = zip(header, cells, strict=False)
    return DatasetRow.parse({key: parse_cell(cell, place) for key, cell in named if cell}, place)


def parse_cell(cell: str, place: str) -> Any:
    """`{constant: x}` as in YAML; anything else is text, whatever it looks like."""
    if not cell.startswith("{"):
        return cell
    try:
        return yaml.load(cell, yaml.BaseLoader)
    except yaml.YAMLError:
        raise ConfigError(f"{place}: `{cell}` is not of the form `{{constant: value}}`.") from None
