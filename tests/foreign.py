"""h5ads as others write them, and the ways in which they break."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from synthetic import make_counts
from tabatlas import names
from tabatlas.genes import load_gene_table

HUMAN = "Homo sapiens"


def human_genes(n_genes: int) -> pd.DataFrame:
    """The first protein-coding genes: ids as index, their symbols in `feature_name`."""
    table = load_gene_table(HUMAN)
    return table[table[names.FEATURE_TYPE] == names.PROTEIN_CODING].iloc[:n_genes]


def make_foreign(n_cells: int = 8, n_genes: int = 12, **obs: object) -> ad.AnnData:
    """Raw counts in X (CSR float32), Ensembl ids as var names; `obs` gives the columns."""
    return ad.AnnData(
        X=make_counts("foreign", n_cells, n_genes, 0.4).astype(np.float32),
        obs=pd.DataFrame(obs, index=[f"BC{number}" for number in range(n_cells)]),
        var=pd.DataFrame(index=human_genes(n_genes).index.rename(None)),
    )


def write_foreign(path: Path, adata: ad.AnnData | None = None) -> Path:
    """Write it as its author would, with anndata."""
    (make_foreign() if adata is None else adata).write_h5ad(path, compression="gzip")
    return path


def replace_array(path: Path, name: str, values: object, **options: object) -> None:
    """Put other values in the place of a stored array."""
    with h5py.File(path, "r+") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values, **options).attrs.update(attributes)


def claim_size(path: Path, name: str, size: int) -> None:
    """Put an array in place of a stored one that claims `size` values and holds none."""
    with h5py.File(path, "r+") as file:
        attributes, dtype = dict(file[name].attrs), file[name].dtype
        del file[name]
        file.create_dataset(name, (size,), dtype, chunks=(1024,)).attrs.update(attributes)


def normalize(adata: ad.AnnData) -> ad.AnnData:
    """The same cells as log1p of counts per 10⁴."""
    dense = adata.X.toarray()
    adata = adata.copy()
    adata.X = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    return adata
