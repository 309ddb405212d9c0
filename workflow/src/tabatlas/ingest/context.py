"""Open a registered experiment, with TileDB settings for writing and reading in blocks."""

import contextlib
import functools
from collections.abc import Iterator

import tiledbsoma
from tiledbsoma import Experiment, SOMATileDBContext

from tabatlas.errors import InputError, IntegrityError

# The metadata key that registration writes as its last act: the digest of all sources.
REGISTERED = "tabatlas_registered"

TILEDB = {
    # SOMA's default of 1 GiB doubles the cost of reading 64 rows; 4 MiB was best of 1 … 1024.
    "soma.init_buffer_bytes": 4 * 2**20,
    # `check_canonical` proves all three beforehand; they are half the cost of a write.
    "sm.check_coord_dups": "false",
    "sm.check_coord_oob": "false",
    "sm.check_global_order": "false",
    # Datasets are appended side by side. Two threads cost 1.6-2.1 times the CPU time of one.
    "sm.compute_concurrency_level": "1",
    "sm.io_concurrency_level": "1",
}


@functools.cache
def share_context() -> SOMATileDBContext:
    """The process's one TileDB context: all arrays share its threads.

    TileDB reads further settings from `TILEDB_*` variables, as `TILEDB_VFS_S3_REGION`.
    """
    return SOMATileDBContext(tiledb_config=TILEDB)


@contextlib.contextmanager
def tell_failure(uri: str) -> Iterator[None]:
    """Raise `InputError` where the store at `uri` cannot be reached, written or read."""
    try:
        yield
    except tiledbsoma.SOMAError as error:
        raise InputError(
            f"{uri}: TileDB failed there ({error}). Check the place and its space; for S3 also "
            "the bucket, the credentials (AWS_*) and the endpoint (TILEDB_VFS_S3_*). Then run the "
            "same command again."
        ) from None


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
        raise IntegrityError(f"{uri}: {state}. Delete it and run `tabatlas ingest` again.")
    return experiment
