"""Write the embedding of every cell as a table, and read some of its rows."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from tabatlas import names
from tabatlas.provenance import atomic_path
from tabatlas.stream.minibatch import Minibatch


def name_dimensions(n_latent: int) -> list[str]:
    """Columns of the table of the embedding: z0, z1, …"""
    return [f"z{number}" for number in range(n_latent)]


def write_embedding(
    embedded: Iterable[tuple[Minibatch, Tensor]], obs_id_n: pd.Series, n_latent: int, path: Path
) -> None:
    """Write `obs_id`, `soma_joinid` and z0 … of all cells, a row group per minibatch.

    `obs_id_n` holds the cells' names in the order in which they come.
    """
    dimensions = name_dimensions(n_latent)
    columns = [(names.OBS_ID, pa.string()), (names.JOINID, pa.int64())]
    schema = pa.schema([*columns, *((name, pa.float32()) for name in dimensions)])
    done = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for minibatch, place_nz in embedded:
            values = dict(zip(dimensions, place_nz.float().cpu().numpy().T, strict=True))
            cells = obs_id_n.iloc[done : done + len(minibatch)].astype(str).to_numpy()
            names_of = {names.OBS_ID: cells, names.JOINID: minibatch.joinid.cpu().numpy()}
            writer.write_table(pa.table(names_of | values, schema=schema))
            done += len(minibatch)


def read_embedding(path: Path, joinid_n: np.ndarray) -> np.ndarray:
    """The rows (n, z) of some cells, in their order; only a row group is in memory at a time."""
    table = pq.ParquetFile(path)
    columns = [name for name in table.schema_arrow.names if name != names.OBS_ID]
    wanted = pd.Index(joinid_n)
    place_nz = np.empty((len(wanted), len(columns) - 1), dtype=np.float32)
    for group in range(table.num_row_groups):
        values = table.read_row_group(group, columns).to_pandas().set_index(names.JOINID)
        found = wanted.get_indexer(values.index)
        place_nz[found[found >= 0]] = values.to_numpy()[found >= 0]
    return place_nz
