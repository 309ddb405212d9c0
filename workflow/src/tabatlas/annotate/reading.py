"""Read a query h5ad block by block; in a process of its own, for nobody vouches for the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import scipy.sparse as sp

from tabatlas.blocks import iterate_rows
from tabatlas.counts import check_size, check_structure, find_counts, open_h5ad, read_frame


@dataclass(frozen=True)
class QueryHead:
    """What is known of a query before its counts: its size, its genes, where the counts are."""

    n_cells: int
    counts: str
    var: pd.DataFrame


def read_query(
    path: Path, source: str, layer: str | None, n_rows: int
) -> Iterator[QueryHead | sp.csr_matrix]:
    """The head of a query h5ad, then its counts as CSR float32 in blocks of `n_rows` cells.

    Raises `InputError` and its kinds, with the name `source`, for all that makes it unusable.
    """
    with open_h5ad(path, source) as file:
        n_cells, _ = check_size(file)
        place = find_counts(file, layer)
        var = read_frame(file, "raw/var" if place == "raw/X" else "var")
        check_structure(file, place, len(var))
        yield QueryHead(n_cells, place, var)
        yield from iterate_rows(file[place], n_rows)
