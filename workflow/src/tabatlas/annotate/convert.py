"""Queries of other formats as an h5ad: HDF5 and mtx of Cell Ranger, SOMA."""

import csv
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
import tiledbsoma
from anndata.io import write_elem

from tabatlas import names
from tabatlas.counts import COUNT_LAYERS, DAMAGE, open_hdf5
from tabatlas.errors import InputError, show_some
from tabatlas.experiment import read_rows
from tabatlas.formats import describe_folder

MATRIX = "matrix.mtx"
ARRAYS = ("data", "indices", "indptr")
FEATURES = ("id", "name", "feature_type")
CHUNK = 1 << 17  # stored values that are compressed together
N_ROWS = 4096  # cells of a SOMA experiment at once
# Columns of SOMA that name the rows, as CELLxGENE, tiledbsoma and we call them.
OBS_NAMES = ("obs_id", "_index", "index", "barcode", "observation_joinid")
VAR_NAMES = ("feature_id", "var_id", "_index", "index")


def is_soma(query: str) -> bool:
    """Whether a path or URI leads to a SOMA experiment."""
    return "://" in query or (Path(query).is_dir() and tiledbsoma.Experiment.exists(query))


def convert_folder(query: str, path: Path, layer: str | None) -> str | None:
    """Write a SOMA experiment, or a folder with an mtx, as an h5ad; return the layer to read.

    Of a SOMA experiment that is X, which holds the layer that was named.
    """
    if is_soma(query):
        convert_soma(query, path, layer)
        return "X"
    convert_mtx(Path(query), path)
    return layer


def convert_hdf5(query: str, path: Path) -> None:
    """Write Cell Ranger's HDF5 as an h5ad; copy any other file as it is."""
    with open_hdf5(Path(query)) as file:
        found = [name for name, group in file.items() if is_matrix(group)]
        if len(found) > 1:
            raise InputError(f"it holds two genomes ({', '.join(found)}). Give the counts of one.")
        if found:
            convert_10x(file[found[0]], path)
            return
    shutil.copyfile(query, path)


def is_matrix(group: h5py.Group | h5py.Dataset) -> bool:
    """Whether a group of an HDF5 file is Cell Ranger's matrix."""
    return isinstance(group, h5py.Group) and {"barcodes", *ARRAYS} <= group.keys()


def convert_10x(group: h5py.Group, path: Path) -> None:
    """Write Cell Ranger's matrix as an h5ad; its compressed values are copied as they are."""
    if "features" in group:
        features = group["features"]
        stored = {name: features[name] for name in FEATURES if name in features}
    else:  # Cell Ranger 2
        stored = {"id": group["genes"], "name": group["gene_names"]}
    texts = {name: values.asstr()[:] for name, values in stored.items()}
    n_genes, n_cells = (int(size) for size in group["shape"][:])
    with h5py.File(path, "w") as target:
        cells = pd.DataFrame(index=group["barcodes"].asstr()[:])
        write_frames(target, cells, describe_features(**texts))
        matrix = open_matrix(target, (n_cells, n_genes))
        # By genes × cells compressed along cells: as cells × genes, along rows.
        for name in ARRAYS:
            group.copy(name, matrix)


def convert_mtx(query: Path, path: Path) -> None:
    """Write the mtx of a folder, with its barcodes and features, as an h5ad."""
    ends = (MATRIX, f"{MATRIX}.gz")
    found = sorted(
        path for path in query.iterdir() if path.name.endswith(ends) and path.name[0] != "."
    )
    if not found:
        raise InputError(
            f"{query}: neither a SOMA experiment nor a 10x matrix, but {describe_folder(query)}"
        )
    if len(found) > 1:
        several = show_some(path.name for path in found)
        raise InputError(f"{query}: several matrices ({several}). Give the folder of one.")
    try:
        read_mtx(query, found[0], path)
    except (EOFError, zlib.error, *DAMAGE) as error:
        raise InputError(f"{query}: not a readable 10x matrix ({error}). Fetch it again.") from None


def read_mtx(query: Path, place: Path, path: Path) -> None:
    """Write the matrix at `place`, with the files that belong to it, as an h5ad."""
    prefix = place.name.partition(MATRIX)[0]
    features = read_lines(query, [f"{prefix}features.tsv", f"{prefix}genes.tsv"])
    barcodes = read_lines(query, [f"{prefix}barcodes.tsv"])
    if scipy.io.mminfo(place)[4] == "pattern":
        raise InputError(f"{place}: it says which genes were seen, not how often. Give the counts.")
    matrix = sp.csr_matrix(scipy.io.mmread(place).T)
    if matrix.shape != (len(barcodes), len(features)):
        raise InputError(
            f"{place}: {matrix.shape[1]} genes × {matrix.shape[0]} cells, but {len(features)} "
            f"features and {len(barcodes)} barcodes stand beside it. Give the three of one run."
        )
    columns = dict(zip(FEATURES, features.T.to_numpy(), strict=False))
    with h5py.File(path, "w") as target:
        cells = pd.DataFrame(index=pd.Index(barcodes[0].to_numpy()))
        write_frames(target, cells, describe_features(**columns))
        write_elem(target, "X", matrix)


def read_lines(folder: Path, names_of: list[str]) -> pd.DataFrame:
    """The tab-separated columns of the first of these files that is there, plain or gzipped."""
    for name in [f"{one}{end}" for one in names_of for end in ("", ".gz")]:
        if (folder / name).is_file():
            options = {"header": None, "dtype": str, "quoting": csv.QUOTE_NONE}
            return pd.read_csv(folder / name, sep="\t", keep_default_na=False, **options)
    raise InputError(f"{folder}: no {' or '.join(names_of)} (or .gz) beside the matrix. Add it.")


def describe_features(
    id: np.ndarray, name: np.ndarray | None = None, feature_type: np.ndarray | None = None
) -> pd.DataFrame:
    """var as Cell Ranger's features tell it; a repeated id is left as it is."""
    columns = {names.FEATURE_NAME: name, names.FEATURE_TYPES: feature_type}
    given = {key: values for key, values in columns.items() if values is not None}
    return pd.DataFrame(given, index=pd.Index(id))


def convert_soma(query: str, path: Path, layer: str | None) -> None:
    """Write a SOMA experiment as an h5ad, block by block."""
    try:
        with tiledbsoma.Experiment.open(query) as experiment:
            measurement = choose(experiment.ms, "measurement", [names.MEASUREMENT])
            layers = measurement.X
            if layer not in (None, *layers):
                raise InputError(f"{query}: no layer `{layer}`; it has {show_some(layers)}.")
            stored = layers[layer] if layer else choose(layers, "layer", COUNT_LAYERS)
            obs = read_frame(experiment.obs, OBS_NAMES)
            var = read_frame(measurement.var, VAR_NAMES)
            write_soma(path, obs, var, stored)
    except (tiledbsoma.SOMAError, *DAMAGE) as error:
        raise InputError(f"{query}: not a readable SOMA experiment ({error}).") from None


def write_soma(
    path: Path, obs: pd.DataFrame, var: pd.DataFrame, stored: tiledbsoma.SparseNDArray
) -> None:
    """Write the tables, and the matrix row by row, as an h5ad."""
    joinid_n, joinid_g = (table[names.JOINID].to_numpy() for table in (obs, var))
    with h5py.File(path, "w") as target:
        write_frames(target, obs, var)
        matrix = open_matrix(target, (len(obs), len(var)))
        data, indices = (
            matrix.create_dataset(
                name,
                (0,),
                kind,
                maxshape=(None,),
                chunks=(CHUNK,),
                compression="gzip",
                compression_opts=1,
            )
            for name, kind in (("data", np.float32), ("indices", np.int32))
        )
        pointers = [np.zeros(1, np.int64)]
        for start in range(0, len(obs), N_ROWS):
            rows = read_rows(stored, joinid_n[start : start + N_ROWS])[:, joinid_g]
            for array, values in ((data, rows.data), (indices, rows.indices)):
                array.resize((len(array) + len(values),))
                array[len(array) - len(values) :] = values
            pointers.append(pointers[-1][-1] + rows.indptr[1:].astype(np.int64))
        matrix.create_dataset("indptr", data=np.concatenate(pointers))


def choose(
    collection: tiledbsoma.Collection, kind: str, wanted: Sequence[str]
) -> tiledbsoma.Measurement | tiledbsoma.SparseNDArray:
    """The first of the wanted members of a SOMA collection, else its only one."""
    there = list(collection)
    named = [name for name in wanted if name in there]
    if not named and len(there) != 1:
        raise InputError(f"no {kind} named {' or '.join(wanted)}; it has {show_some(there)}.")
    return collection[(named or there)[0]]


def read_frame(stored: tiledbsoma.DataFrame, names_of: tuple[str, ...]) -> pd.DataFrame:
    """A table of SOMA by joinid; the first of the columns `names_of` that it has names the rows."""
    table = stored.read().concat().to_pandas().sort_values(names.JOINID)
    own = next((name for name in names_of if name in table), names.JOINID)
    table.index = pd.Index(table[own].astype(str).to_numpy())
    table = table.drop(columns="_index", errors="ignore")  # anndata's own word
    times = table.select_dtypes(["datetime", "datetimetz"]).columns  # which h5ad does not know
    table = table.astype(dict.fromkeys(times, str))
    # h5ad has no missing values in texts, but in categories.
    texts = [name for name in table if table[name].dtype == object]
    return table.astype(dict.fromkeys(texts, "category"))


def write_frames(target: h5py.File, obs: pd.DataFrame, var: pd.DataFrame) -> None:
    """Write what every h5ad has beside its matrix."""
    target.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    write_elem(target, "obs", obs)
    write_elem(target, "var", var)


def open_matrix(target: h5py.File, shape: tuple[int, int]) -> h5py.Group:
    """An empty CSR matrix X, to be filled with its three arrays."""
    matrix = target.create_group("X")
    matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    matrix.attrs["shape"] = shape
    return matrix
