"""Read a sealed SOMA experiment, always at the timestamp that its manifest pins."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import tiledbsoma

from tabatlas import names
from tabatlas.errors import IntegrityError, ModelError, show
from tabatlas.provenance import read_json

FORMAT = 1
# SOMA's default of 1 GiB doubles the cost of small reads. Of TileDB's 10 GiB for tiles, to read
# 20,000 cells of 120,000 took two and a half; with half a GiB it takes no longer.
BUFFERS = {"soma.init_buffer_bytes": 4 * 2**20, "sm.mem.total_budget": 512 * 2**20}


class Experiment:
    """A sealed experiment. Rows are joinids, which name cells; they may have gaps."""

    def __init__(self, about: dict[str, Any], soma: tiledbsoma.Experiment) -> None:
        self.about, self.soma = about, soma

    @property
    def digest(self) -> str:
        """Digest of the content: (joinid, gene, count) and obs in order."""
        return self.about["digest"]

    @property
    def dataset_ids(self) -> list[str]:
        """Ids of the datasets, in the order of the presence matrix's rows."""
        return [one["dataset_id"] for one in self.about["datasets"]]

    def read_obs(self, columns: Sequence[str]) -> pd.DataFrame:
        """`soma_joinid` and obs columns of every cell, by joinid.

        Raises `IntegrityError` for a missing value: it would be taken for another's.
        """
        table = self.soma.obs.read(column_names=[names.JOINID, *columns]).concat()
        obs = table.to_pandas().sort_values(names.JOINID, ignore_index=True)
        for name in [one for one in columns if obs[one].isna().any()]:
            joinid = obs.loc[obs[name].isna().idxmax(), names.JOINID]
            raise IntegrityError(
                f"{self.soma.uri}: obs column `{name}` of the cell with soma_joinid {joinid} is "
                "missing. Encode missing values as `unknown` and run `tabatlas ingest` again."
            )
        return obs

    def read_cells(self, columns: Sequence[str]) -> pd.DataFrame:
        """`read_obs` with names that hold over all datasets.

        `dataset` is the row of the presence matrix, `donor` the person (see `name_donors`), and
        `batch` begins with the dataset, for libraries of two datasets may have one name.
        """
        owners = (names.DATASET_ID, names.BATCH, names.COLLECTION_ID, names.DONOR_ID)
        cells = self.read_obs(list(dict.fromkeys([*columns, *owners])))
        cells[names.DONOR] = name_donors(cells)
        dataset_ids = cells[names.DATASET_ID].astype(str)
        cells["dataset"] = pd.Index(self.dataset_ids).get_indexer(dataset_ids)
        for dataset_id in dataset_ids[cells["dataset"] < 0][:1]:
            raise IntegrityError(
                f"{self.soma.uri}: holds cells of `{show(dataset_id)}`, which its manifest does "
                "not name. Run `tabatlas ingest` again."
            )
        cells[names.BATCH] = dataset_ids + "/" + cells[names.BATCH].astype(str)
        return cells

    def read_var(self) -> pd.DataFrame:
        """`soma_joinid`, `feature_id` and `feature_name` of every gene of the atlas."""
        var = self.soma.ms[names.MEASUREMENT].var
        wanted = [names.JOINID, names.FEATURE_ID, names.FEATURE_NAME]
        table = var.read(column_names=wanted).concat().to_pandas()
        return table.sort_values(names.JOINID, ignore_index=True)

    def read_presence(self) -> np.ndarray:
        """Which genes each dataset measured (datasets, genes) bool."""
        stored = self.soma.ms[names.MEASUREMENT][names.PRESENCE]
        coo = stored.read().tables().concat()
        presence_mg = np.zeros(stored.shape, dtype=bool)
        presence_mg[coo["soma_dim_0"].to_numpy(), coo["soma_dim_1"].to_numpy()] = True
        return presence_mg

    @property
    def counts(self) -> tiledbsoma.SparseNDArray:
        """Raw counts, cells × genes."""
        return self.soma.ms[names.MEASUREMENT].X[names.RAW_LAYER]

    @property
    def entries_per_cell(self) -> float:
        """Counts per cell that are not 0, in the dataset that has most of them."""
        return max(one["n_entries"] / max(1, one["n_obs"]) for one in self.about["datasets"])

    def iterate_entries(
        self, joinids: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """joinid, gene and count of all entries of cells, piece by piece, as they are stored.

        `joinids` rise. Entries come in TileDB's order: where a tile spans all genes, as in what
        `ingest` writes, row by row with genes rising.
        """
        yield from iterate_entries(self.counts, joinids)

    def read_counts(self, joinids: np.ndarray) -> sp.csr_matrix:
        """Raw counts of cells in the order of `joinids` (n, all genes) int32."""
        counts = read_rows(self.counts, joinids).astype(np.int32, copy=False)
        counts.sort_indices()
        return counts


def iterate_entries(
    stored: tiledbsoma.SparseNDArray, joinids: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row, column and value of all entries of rows, which rise, piece by piece."""
    for table in stored.read(coords=(joinids,)).tables():
        for batch in table.to_batches():
            row, column, value = (part.to_numpy() for part in batch.columns)
            yield row, column, value


def read_rows(stored: tiledbsoma.SparseNDArray, joinids: np.ndarray) -> sp.csr_matrix:
    """Rows of a sparse SOMA array in the order of `joinids` (n, all columns), columns unsorted."""
    order = np.argsort(joinids, kind="stable")
    ascending = joinids[order]
    kind = stored.schema.field("soma_data").type.to_pandas_dtype()
    pieces = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, kind))]
    # A stated order would cost ten times as much; CSR needs none. Narrowed piece by piece: whole
    # columns of int64 would double the memory.
    for joinid, column, value in iterate_entries(stored, ascending):
        row = order[np.searchsorted(ascending, joinid)]
        pieces.append((row.astype(np.int32), column.astype(np.int32), value))
    row, column, value = map(np.concatenate, zip(*pieces, strict=True))
    return sp.csr_matrix((value, (row, column)), shape=(len(joinids), stored.shape[1]))


def name_donors(obs: pd.DataFrame) -> pd.Series:
    """A name per person: collection and donor. A dataset of unknown donors is one of its own.

    CELLxGENE's `donor_id` is unique only within a dataset, and comparable within a collection.
    """
    unknown = obs[names.DONOR_ID].astype(str).eq(names.UNKNOWN)
    known = obs[names.COLLECTION_ID].astype(str) + "/" + obs[names.DONOR_ID].astype(str)
    return known.where(~unknown, obs[names.DATASET_ID].astype(str) + "/" + names.UNKNOWN)


@contextlib.contextmanager
def open_experiment(manifest: Path) -> Iterator[Experiment]:
    """Open the experiment that a manifest seals.

    Raises `ModelError` without a manifest or for one of another format, `IntegrityError` where the
    experiment it names is gone, or cannot be read while it is open.
    """
    if not manifest.is_file():
        raise ModelError(f"{manifest}: no sealed experiment there. Run `tabatlas ingest seal`.")
    about = read_json(manifest)
    if about.get("format") != FORMAT:
        raise ModelError(f"{manifest}: format {about.get('format')}, not {FORMAT}. Ingest again.")
    uri = locate_store(about["uri"], manifest)
    context = tiledbsoma.SOMATileDBContext(timestamp=about["timestamp"], tiledb_config=BUFFERS)
    try:
        with tiledbsoma.Experiment.open(uri, context=context) as soma:
            yield Experiment(about, soma)
    except tiledbsoma.SOMAError as error:
        reason = " ".join(str(error).split())[:300]
        step = "Delete it and run `tabatlas ingest` again."
        if "://" in uri:
            step = "Check the network and the credentials and run it again; if that does not "
            step += "help, delete the experiment and run `tabatlas ingest` again."
        raise IntegrityError(
            f"{manifest}: the experiment {uri} cannot be read ({reason}). {step}"
        ) from None


def check_sealed(manifest: Path, digest: str, pack: Path) -> None:
    """Raise `IntegrityError` unless `manifest` seals the experiment that a pack was made from.

    Equal joinids of another experiment are other cells.
    """
    with open_experiment(manifest) as experiment:
        if experiment.digest != digest:
            raise IntegrityError(
                f"{pack}: made from another experiment than {manifest} seals. Run `tabatlas pack` "
                "and what follows again."
            )


def locate_store(uri: str, manifest: Path) -> str:
    """The URI of a store; a local one is relative to its manifest, so that results can move."""
    return uri if "://" in uri else str((manifest.parent / uri).resolve())
