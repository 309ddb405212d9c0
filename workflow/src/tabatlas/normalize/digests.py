"""Digests of what a normalized h5ad holds, however its bytes lie in the file."""

import hashlib

import anndata as ad
import numpy as np
import pandas as pd

from tabatlas.names import MEASURED, OBS_ID
from tabatlas.provenance import digest_json


def digest_genes(genes: pd.Index) -> str:
    """sha256 over the ordered gene ids."""
    return digest_json(list(genes))


def digest_cells(adata: ad.AnnData) -> str:
    """sha256 over obs_ids, obs columns, counts (canonical CSR) and which genes were measured.

    Numbers enter with their type, categories as text; the order of obs columns takes no part.
    """
    columns = {name: digest_values(adata.obs[name]) for name in adata.obs}
    matrix = adata.X
    return digest_json(
        {
            OBS_ID: digest_values(adata.obs_names),
            "obs": columns,
            "indptr": digest_values(matrix.indptr.astype(np.int64)),
            "indices": digest_values(matrix.indices.astype(np.int32)),
            "data": digest_values(matrix.data),
            MEASURED: digest_values(adata.var[MEASURED]),
        }
    )


def digest_values(values: pd.Series | pd.Index | np.ndarray) -> str:
    """Type and sha256 of numbers in little-endian order; of anything else, of its texts."""
    if values.dtype.kind not in "biuf":
        return digest_json([str(value) for value in values])
    plain = np.asarray(values)
    little = np.ascontiguousarray(plain.astype(plain.dtype.newbyteorder("<")))
    return f"{little.dtype.str}:{hashlib.sha256(little).hexdigest()}"
