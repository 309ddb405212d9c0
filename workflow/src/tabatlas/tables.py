"""Parquet tables: written atomically, read with a clear message."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from tabatlas.errors import InputError
from tabatlas.provenance import atomic_path


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a parquet table atomically, without its index."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table. Raises `InputError` where it is missing, damaged or another one."""
    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not the table it should be ({reason}). Make it again.") from None
