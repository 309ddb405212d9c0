"""An experiment written by hand: what `ingest` would never write, or not any more."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
import tiledbsoma as soma

from small_atlas import Atlas
from synthetic import gene_ids, make_cells
from tabatlas import names
from tabatlas.experiment import FORMAT
from tabatlas.ingest.creation import VAR_SCHEMA, matrix_layout
from tabatlas.ingest.sealing import pin_moment

GAPS = np.arange(60) * 7 + 3  # joinids with gaps


def make_obs(joinids: np.ndarray, counts: sp.csr_matrix) -> pd.DataFrame:
    """obs of one dataset `a` with these joinids and the true totals, its texts as plain texts."""
    cells = make_cells("a", len(joinids), n_donors=6).reset_index()
    texts = [name for name, kind in cells.dtypes.items() if kind.kind not in "iuf"]
    cells[texts] = cells[texts].astype(str).astype(object)
    cells[names.TOTAL_N] = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    cells.insert(0, names.JOINID, joinids)
    return cells


def write_store(
    folder: Path,
    obs: pd.DataFrame,
    counts: sp.csr_matrix,
    pieces: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    tile: int | None = None,
    **about: object,
) -> Path:
    """Write obs and the entries of `counts`, whose rows are its; return the manifest's path.

    `pieces` are (joinid, entries) of each write, the entries as places in CSR order; by default
    all at once. `tile` is that over genes, all of them by default. `about` changes the manifest,
    which else says what is true.
    """
    store, coo = folder / "soma", counts.tocoo()
    row = obs[names.JOINID].to_numpy()[coo.row]
    create_store(store, obs, counts.shape[1], tile or counts.shape[1])
    for rows, entries in pieces or [(row, np.arange(counts.nnz))]:
        write_entries(store, rows, coo.col[entries].astype(np.int64), coo.data[entries])
    presence = {"soma_dim_1": np.arange(counts.shape[1]), "soma_data": [True] * counts.shape[1]}
    write_array(store, names.PRESENCE, {"soma_dim_0": [0] * counts.shape[1]} | presence)
    said = {
        "format": FORMAT,
        "uri": "soma",
        "timestamp": pin_moment(),
        "digest": "by hand",
        "organism": "Homo sapiens",
        "n_obs": len(obs),
        "n_vars": counts.shape[1],
        "n_entries": counts.nnz,
        "datasets": [{"dataset_id": "a", "n_obs": len(obs), "n_entries": int(counts.nnz)}],
    }
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(said | about))
    return manifest


def create_store(store: Path, obs: pd.DataFrame, n_vars: int, tile: int) -> None:
    """An experiment with obs and var, its matrices empty; X has one row more than obs."""
    table = pa.Table.from_pandas(obs, preserve_index=False)
    var = {
        names.JOINID: np.arange(n_vars),
        names.FEATURE_ID: gene_ids(n_vars),
        names.FEATURE_NAME: [f"GENE{number}" for number in range(n_vars)],
    }
    with soma.Experiment.create(str(store)) as experiment:
        last = int(obs[names.JOINID].max())
        layout = {"platform_config": matrix_layout(tile)}
        schema = table.schema.remove_metadata()
        experiment.add_new_dataframe("obs", schema=schema, domain=[(0, last)]).write(table)
        rna = experiment.add_new_collection("ms").add_new_collection(
            names.MEASUREMENT, soma.Measurement
        )
        own = rna.add_new_dataframe("var", schema=VAR_SCHEMA, domain=[(0, n_vars - 1)])
        own.write(pa.table(var, VAR_SCHEMA))
        presence = {"type": pa.bool_(), "shape": (1, n_vars)}
        rna.add_new_sparse_ndarray(names.PRESENCE, **presence, **layout)
        raw = {"type": pa.int32(), "shape": (last + 2, n_vars)}
        rna.add_new_collection("X").add_new_sparse_ndarray(names.RAW_LAYER, **raw, **layout)


def write_entries(store: Path, joinid: np.ndarray, gene: np.ndarray, count: np.ndarray) -> None:
    """Write entries of X, at a time of its own."""
    entries = {"soma_dim_0": joinid, "soma_dim_1": gene, "soma_data": pa.array(count, pa.int32())}
    write_array(store, f"X/{names.RAW_LAYER}", entries)


def write_array(store: Path, name: str, entries: dict[str, object]) -> None:
    """Write entries of a matrix of the measurement."""
    uri = str(store / "ms" / names.MEASUREMENT / name)
    with soma.SparseNDArray.open(uri, "w") as target:
        target.write(pa.table(entries))
    pin_moment()


def make_gappy(
    folder: Path, counts: sp.csr_matrix, obs: pd.DataFrame | None = None, **written: object
) -> Atlas:
    """An atlas of one dataset whose joinids have gaps, up to its split; see `write_store`.

    Of ten cells seven train and two validate.
    """
    obs = make_obs(GAPS[: counts.shape[0]], counts) if obs is None else obs
    atlas = Atlas(folder)
    for path in (atlas.manifest, atlas.cells):
        path.parent.mkdir(parents=True)
    write_store(atlas.manifest.parent, obs, counts, **written)
    part = np.searchsorted([7, 9], np.arange(len(obs)) % 10, side="right")
    parts = obs[[names.JOINID]].assign(**{names.SPLIT: np.array(names.PARTS)[part]})
    parts.to_parquet(atlas.cells)
    return atlas
