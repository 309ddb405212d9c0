"""Parquet tables: written atomically, read with a clear message."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tabatlas.errors import InputError
from tabatlas.provenance import atomic_path


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a parquet table atomically, without its index."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


@contextlib.contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends rows to a parquet table, which stands there when the block ends well.

    For tables that are larger than the memory; each call makes a row group.
    """

    def append(rows: pd.DataFrame) -> None:
        writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))

    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        yield append


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table. Raises `InputError` where it is missing, damaged or another one."""
    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not the table it should be ({reason}). Make it again.") from None
