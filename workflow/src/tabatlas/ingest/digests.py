"""Digests of content: equal for equal cells however they were divided, stored or read."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.provenance import digest_json


@dataclass
class CountsTally:
    """Totals and sha256 of (joinid, gene, count), fed block by block in the order of the rows.

    A row enters as its joinid and its number of entries, an entry as gene and count: the same
    information as the triples in half the bytes.
    """

    n_obs: int = 0
    n_entries: int = 0
    total: int = 0
    hashes: tuple = field(default_factory=lambda: tuple(hashlib.sha256() for _ in range(3)))

    def add(self, first_joinid: int, counts: sp.csr_matrix) -> None:
        """Add rows whose joinids follow `first_joinid` (CSR int32, canonical)."""
        n_rows = counts.shape[0]
        joinids = np.arange(first_joinid, first_joinid + n_rows)
        rows = np.column_stack([joinids, np.diff(counts.indptr)])
        self.n_obs += n_rows
        self.n_entries += int(counts.nnz)
        self.total += int(counts.data.sum(dtype=np.int64))
        parts = ((rows, "<i8"), (counts.indices, "<i4"), (counts.data, "<i4"))
        for digest, (values, kind) in zip(self.hashes, parts, strict=True):
            digest.update(np.ascontiguousarray(values, dtype=kind))

    def digest(self) -> str:
        """sha256 of all rows so far."""
        return digest_json([digest.hexdigest() for digest in self.hashes])


def digest_frame(frame: pd.DataFrame) -> str:
    """sha256 of a frame's columns, by name, and their values in order; categories count as text.

    The order of the columns, of categories and the index take no part.
    """
    return digest_json({name: digest_column(frame[name]) for name in frame})


def digest_column(column: pd.Series) -> list[str]:
    """Type and sha256 of a column without missing values."""
    if column.dtype.kind in "iufb":
        values = column.to_numpy()
        little = values.astype(values.dtype.newbyteorder("<"))
        return [little.dtype.str, hashlib.sha256(little.tobytes()).hexdigest()]
    texts = column.astype(object).to_list()
    # With the lengths no two lists of texts give the same bytes.
    lengths = np.fromiter(map(len, texts), dtype="<i8", count=len(texts))
    digest = hashlib.sha256(lengths.tobytes())
    digest.update("".join(texts).encode())
    return ["text", digest.hexdigest()]


def digest_genes(gene_g: np.ndarray) -> str:
    """sha256 of sorted gene indices, as those that a dataset measured."""
    return hashlib.sha256(gene_g.astype("<i8").tobytes()).hexdigest()
