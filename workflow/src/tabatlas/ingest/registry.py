"""What `register` assigned: every dataset's rows, and what the experiment must hold there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabatlas.errors import IntegrityError, ModelError
from tabatlas.experiment import FORMAT
from tabatlas.provenance import read_json, write_json


@dataclass(frozen=True)
class Dataset:
    """A dataset's place in the experiment, and what it holds.

    `row` is that of the presence matrix; `digest` that of the normalized source.
    """

    dataset_id: str
    row: int
    first_joinid: int
    n_obs: int
    n_entries: int
    total: int
    n_measured: int
    digest: str
    obs_digest: str
    measured_digest: str

    @property
    def stop_joinid(self) -> int:
        """The joinid after its last one."""
        return self.first_joinid + self.n_obs


@dataclass(frozen=True)
class Registry:
    """An experiment as registered: location, shape, genes and datasets in the order of rows.

    `sources_digest` names the location; `uri` is relative to the file that holds it, unless the
    settings gave an absolute one.
    """

    uri: str
    sources_digest: str
    organism: str
    n_obs: int
    n_vars: int
    genes_digest: str
    var_digest: str
    normalized: bool
    datasets: tuple[Dataset, ...]


def write_formatted(values: dict[str, Any], path: Path) -> None:
    """Write a JSON file of this stage atomically, with its format."""
    write_json({"format": FORMAT, **values}, path)


def read_registry(path: Path) -> Registry:
    """Read `register.json`. Raises `ModelError` for another format."""
    values = read_formatted(path)
    datasets = tuple(Dataset(**values) for values in values.pop("datasets"))
    return Registry(datasets=datasets, **values)


def read_formatted(path: Path) -> dict[str, Any]:
    """Read a JSON file of this stage, its format verified and taken out.

    Raises `IntegrityError` where it is missing, `ModelError` where it is of another format.
    """
    if not Path(path).is_file():
        raise IntegrityError(f"{path}: no such file. Run `tabatlas ingest`.")
    values = read_json(path)
    found = values.pop("format", None)
    if found != FORMAT:
        raise ModelError(
            f"{path}: format {found}, {FORMAT} is needed. Run `tabatlas ingest` again."
        )
    return values
