"""One query in every format that can be annotated."""

import gzip
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
import tiledbsoma.io

from tabatlas import names
from tabatlas.genes import load_gene_table


def make_query(atlas, dataset_id: str = "a") -> ad.AnnData:
    """A dataset of the small atlas as its author would give it: only what was measured."""
    adata = ad.read_h5ad(atlas.folder / f"{dataset_id}.h5ad")
    adata = adata[:, adata.var[names.MEASURED]].copy()
    counts = adata.X.astype(np.float32)
    obs = pd.DataFrame(
        {"donor": adata.obs[names.DONOR_ID].astype(str), "score": np.arange(adata.n_obs)},
        index=adata.obs_names.rename(None),
    )
    symbols = load_gene_table("Homo sapiens")[names.FEATURE_NAME].reindex(adata.var_names)
    var = pd.DataFrame({"symbol": symbols.to_numpy()}, index=adata.var_names.rename(None))
    return ad.AnnData(X=counts, obs=obs, var=var)


def write_10x(path: Path, adata: ad.AnnData) -> None:
    """HDF5 as Cell Ranger 3 and later write it."""
    counts = adata.X.tocsr()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            values = getattr(counts, name).astype(np.int32 if name == "data" else np.int64)
            group.create_dataset(name, data=values, compression="gzip")
        group["shape"] = np.array(adata.shape[::-1], dtype=np.int32)
        group["barcodes"] = adata.obs_names.to_numpy().astype("S")
        features = group.create_group("features")
        features["id"] = adata.var_names.to_numpy().astype("S")
        features["name"] = adata.var["symbol"].to_numpy().astype("S")
        features["feature_type"] = np.full(adata.n_vars, b"Gene Expression")


def write_10x_v2(path: Path, adata: ad.AnnData) -> None:
    """HDF5 as Cell Ranger 2 wrote it: a group per genome."""
    write_10x(path, adata)
    with h5py.File(path, "r+") as file:
        file.move("matrix", "GRCh38")
        file.move("GRCh38/features/id", "GRCh38/genes")
        file.move("GRCh38/features/name", "GRCh38/gene_names")
        del file["GRCh38/features"]


def write_mtx(folder: Path, adata: ad.AnnData, prefix: str = "", zipped: bool = True) -> None:
    """The three files of Cell Ranger."""
    folder.mkdir()
    features = "".join(
        f"{gene}\t{symbol}\tGene Expression\n"
        for gene, symbol in zip(adata.var_names, adata.var["symbol"], strict=True)
    )
    barcodes = "".join(f"{name}\n" for name in adata.obs_names)
    texts = {"features.tsv": features, "barcodes.tsv": barcodes}
    matrix = folder / f"{prefix}matrix.mtx"
    scipy.io.mmwrite(matrix, sp.coo_matrix(adata.X.T), field="integer")
    texts["matrix.mtx"] = matrix.read_text()
    matrix.unlink()
    for name, text in texts.items():
        if zipped:
            (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{prefix}{name}").write_text(text)


def write_soma(folder: Path, adata: ad.AnnData) -> None:
    """A SOMA experiment as tiledbsoma writes it by default."""
    tiledbsoma.io.from_anndata(str(folder), adata, measurement_name="RNA")
