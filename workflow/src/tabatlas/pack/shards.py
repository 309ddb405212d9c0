"""Write the cells of one part as shuffled CSR shards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.experiment import Experiment
from tabatlas.names import JOINID

# The smallest type that holds a shard's largest count: nearly always one byte.
COUNT_TYPES = (np.uint8, np.uint16, np.uint32)


def read_shards(
    experiment: Experiment, cells: pd.DataFrame, shard_cells: int
) -> Iterator[tuple[pd.DataFrame, sp.csr_matrix]]:
    """Tables and counts (n, all genes) of `shard_cells` cells each, in the order of `cells`."""
    for start in range(0, len(cells), shard_cells):
        chosen = cells.iloc[start : start + shard_cells]
        yield chosen, experiment.read_counts(chosen[JOINID].to_numpy())


def write_shard(counts: sp.csr_matrix, folder: Path) -> None:
    """Write the arrays of one shard: `indptr` int64, `gene` uint16, `count` as small as fits."""
    folder.mkdir(parents=True)
    largest = int(counts.data.max(initial=0))
    kind = next(kind for kind in COUNT_TYPES if largest <= np.iinfo(kind).max)
    np.save(folder / "indptr.npy", counts.indptr.astype(np.int64))
    np.save(folder / "gene.npy", counts.indices.astype(np.uint16))
    np.save(folder / "count.npy", counts.data.astype(kind))


def shuffle_cells(cells: pd.DataFrame, part: str, rng: np.random.Generator) -> pd.DataFrame:
    """The cells of a part in random order: neighbours on disk are strangers."""
    chosen = cells[cells[names.SPLIT] == part]
    return chosen.iloc[rng.permutation(len(chosen))].reset_index(drop=True)
