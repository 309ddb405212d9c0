"""Open an experiment: where it is, at which moment, with which TileDB settings."""

import functools
import os
from pathlib import Path
from typing import Any

import tiledbsoma
from tiledbsoma import Experiment, SOMATileDBContext

from tabatlas.errors import IntegrityError
from tabatlas.ingest.registry import read_formatted

# The metadata key that registration writes as its last act: the digest of all sources.
REGISTERED = "tabatlas_registered"

TILEDB = {
    # Buffers of 1 GiB, the default, double the cost of reading 64 rows; measured: 4 MiB is best.
    "soma.init_buffer_bytes": 4 * 2**20,
    # `check_canonical` proves all three beforehand; they are half the cost of a write.
    "sm.check_coord_dups": "false",
    "sm.check_coord_oob": "false",
    "sm.check_global_order": "false",
}


@functools.cache
def share_context() -> SOMATileDBContext:
    """The process's one TileDB context: its caches and threads are shared by all arrays.

    TileDB reads further settings from `TILEDB_*` variables, as `TILEDB_VFS_S3_REGION`.
    """
    return SOMATileDBContext(tiledb_config=TILEDB)


def open_experiment(manifest: Path) -> Experiment:
    """Open a sealed experiment as it was when sealed; close it after use (`with`).

    Raises `IntegrityError` where manifest or experiment is missing or they do not belong
    together, `ModelError` for another format.
    """
    sealed = read_manifest(manifest)
    uri = resolve_uri(sealed["uri"], manifest)
    return open_registered(uri, sealed["sources_digest"], sealed["timestamp"])


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Read `manifest.json`; its keys stand in `sealing.py`. Errors as `open_experiment`."""
    return read_formatted(manifest)


def open_registered(uri: str, digest: str, timestamp: int | None = None) -> Experiment:
    """Open the experiment of the sources of that digest, as of a timestamp (ms) or of now.

    Raises `IntegrityError` where it is missing, was registered in part or holds other sources.
    """
    try:
        experiment = Experiment.open(uri, context=share_context(), tiledb_timestamp=timestamp)
    except tiledbsoma.SOMAError as error:
        raise IntegrityError(
            f"{uri}: no readable experiment there ({error}). Move it back, or delete what is "
            "left there and run `tabatlas ingest` again."
        ) from None
    found = experiment.metadata.get(REGISTERED)
    if found != digest:
        experiment.close()
        state = "its registration never ended" if found is None else "it holds other sources"
        raise IntegrityError(f"{uri}: {state}. Delete this folder and run `tabatlas ingest` again.")
    return experiment


def is_remote(uri: str) -> bool:
    """Whether a uri names an object store instead of a local path."""
    return "://" in uri


def resolve_uri(uri: str, holder: Path) -> str:
    """The absolute form of a uri that stands in the file `holder`."""
    return uri if is_remote(uri) else os.path.abspath(holder.parent / uri)


def move_uri(uri: str, holder: Path, new_holder: Path) -> str:
    """The form that a uri of the file `holder` takes in `new_holder`: relative stays relative."""
    if is_remote(uri) or os.path.isabs(uri):
        return uri
    return os.path.relpath(resolve_uri(uri, holder), new_holder.parent)
