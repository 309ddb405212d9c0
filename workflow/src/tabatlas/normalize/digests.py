"""Digests of what a normalized h5ad holds, however its bytes lie in the file."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.names import MEASURED, OBS_ID
from tabatlas.provenance import digest_json

KIND = "<i4"


def digest_genes(genes: pd.Index) -> str:
    """sha256 over the ordered gene ids."""
    return digest_json(list(genes))


@dataclass
class CountsDigest:
    """sha256 of canonical CSR rows (int32) that are fed block by block, in their order."""

    pointers: list[np.ndarray] = field(default_factory=lambda: [np.zeros(1, np.int64)])
    indices: Any = field(default_factory=hashlib.sha256)
    data: Any = field(default_factory=hashlib.sha256)

    def add(self, counts: sp.csr_matrix) -> None:
        """Add the next rows."""
        self.pointers.append(self.pointers[-1][-1] + counts.indptr[1:].astype(np.int64))
        self.indices.update(np.ascontiguousarray(counts.indices, dtype=KIND))
        self.data.update(np.ascontiguousarray(counts.data, dtype=KIND))

    @property
    def n_entries(self) -> int:
        """Number of stored counts so far."""
        return int(self.pointers[-1][-1])

    def describe(self) -> dict[str, str]:
        """Digests of the three arrays."""
        return {
            "indptr": digest_values(np.concatenate(self.pointers)),
            "indices": f"{KIND}:{self.indices.hexdigest()}",
            "data": f"{KIND}:{self.data.hexdigest()}",
        }


def digest_cells(axes: ad.AnnData, counts: CountsDigest) -> str:
    """sha256 over obs_ids, obs columns, counts (canonical CSR) and which genes were measured.

    Numbers enter with their type, categories as text; the order of obs columns takes no part.
    """
    return digest_json(
        {
            OBS_ID: digest_values(axes.obs_names),
            "obs": {name: digest_values(axes.obs[name]) for name in axes.obs},
            **counts.describe(),
            MEASURED: digest_values(axes.var[MEASURED]),
        }
    )


def digest_values(values: pd.Series | pd.Index | np.ndarray) -> str:
    """Type and sha256 of numbers in little-endian order; of anything else, of its texts."""
    if values.dtype.kind not in "biuf":
        return digest_json([str(value) for value in values])
    plain = np.asarray(values)
    little = np.ascontiguousarray(plain.astype(plain.dtype.newbyteorder("<")))
    return f"{little.dtype.str}:{hashlib.sha256(little).hexdigest()}"
