"""Create an experiment: obs and var written once, matrices empty and of their final shape."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from tiledbsoma import DataFrame, Experiment, Measurement

from tabatlas.ingest.columns import TEXT
from tabatlas.ingest.context import REGISTERED, open_registered, share_context
from tabatlas.ingest.registration import Survey
from tabatlas.ingest.sources import read_cells
from tabatlas.names import (
    FEATURE_ID,
    FEATURE_NAME,
    JOINID,
    MEASUREMENT,
    NORMALIZED_LAYER,
    PRESENCE,
    RAW_LAYER,
)

VAR_SCHEMA = pa.schema([(JOINID, pa.int64()), (FEATURE_ID, TEXT), (FEATURE_NAME, TEXT)])

# Measured with 1,800 entries per cell, CPU µs per cell in blocks of 64 rows: 64-110 for these, also
# with a capacity of 8,192 … 65,536 and any tile over cells; 125 without the shuffle, at 1.25 times
# the size; 290-410 with DoubleDelta or BitWidthReduction; 590 with SOMA's own layout.
CAPACITY = 32_768
# The checksum is over what is stored and costs nothing that can be measured: without it a bit that
# flips on disk reads as another gene.
FILTERS = [
    "ByteShuffleFilter",
    {"_type": "ZstdFilter", "level": 3},
    "ChecksumSHA256Filter",
]


def ensure_experiment(uri: str, digest: str, survey: Survey, normalized: bool) -> None:
    """Make the registered experiment of a survey stand at `uri`; one that stands there is kept.

    A local one is built aside and renamed: none stands half-built under its name. Raises
    `IntegrityError` where something else stands there, or remotely a half-built one.
    """
    if "://" in uri:
        if not Experiment.exists(uri, context=share_context()):
            build_experiment(uri, digest, survey, normalized)
    elif not Path(uri).exists():
        build_aside(Path(uri), digest, survey, normalized)
    open_registered(uri, digest).close()


def build_aside(target: Path, digest: str, survey: Survey, normalized: bool) -> None:
    """Build the experiment in a temporary folder beside its place, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    for abandoned in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
        built = Path(folder) / target.name
        build_experiment(str(built), digest, survey, normalized)
        os.rename(built, target)


def build_experiment(uri: str, digest: str, survey: Survey, normalized: bool) -> None:
    """Create the experiment, write obs and var, and last its mark."""
    layers = {RAW_LAYER: pa.int32()} | ({NORMALIZED_LAYER: pa.float32()} if normalized else {})
    create_arrays(uri, survey, layers)
    with Experiment.open(uri, context=share_context()) as experiment:
        obs, var = experiment.obs.uri, experiment.ms[MEASUREMENT].var.uri
    write_obs(obs, survey)
    with DataFrame.open(var, "w", context=share_context()) as target:
        target.write(pa.Table.from_pandas(survey.var, VAR_SCHEMA, preserve_index=False))
    with Experiment.open(uri, "w", context=share_context()) as experiment:
        experiment.metadata[REGISTERED] = digest


def create_arrays(uri: str, survey: Survey, layers: dict[str, pa.DataType]) -> None:
    """Create the experiment's tree with every array empty."""
    n_obs, n_vars, n_datasets = survey.n_obs, len(survey.var), len(survey.datasets)
    with Experiment.create(uri, context=share_context()) as experiment:
        schema = survey.columns.schema()
        experiment.add_new_dataframe("obs", schema=schema, domain=[(0, n_obs - 1)])
        measurements = experiment.add_new_collection("ms")
        rna = measurements.add_new_collection(MEASUREMENT, Measurement)
        rna.add_new_dataframe("var", schema=VAR_SCHEMA, domain=[(0, n_vars - 1)])
        layout = matrix_layout(n_vars)
        rna.add_new_sparse_ndarray(
            PRESENCE, type=pa.bool_(), shape=(n_datasets, n_vars), platform_config=layout
        )
        matrices = rna.add_new_collection("X")
        for layer, kind in layers.items():
            matrices.add_new_sparse_ndarray(
                layer, type=kind, shape=(n_obs, n_vars), platform_config=layout
            )


def matrix_layout(n_vars: int) -> dict[str, Any]:
    """TileDB's schema of a matrix cells × genes that is read by rows.

    One tile spans all genes, so that rows in order are TileDB's global order.
    """
    genes = {"tile": n_vars, "filters": FILTERS}
    return {
        "tiledb": {
            "create": {
                "capacity": CAPACITY,
                "dims": {"soma_dim_0": {"filters": FILTERS}, "soma_dim_1": genes},
                "attrs": {"soma_data": {"filters": FILTERS}},
            }
        }
    }


def write_obs(uri: str, survey: Survey) -> None:
    """Write obs dataset by dataset, each at a timestamp of its own."""
    # Before any row: an enumeration that grew while rows are written would change their codes.
    with DataFrame.open(uri, "w", context=share_context()) as obs:
        obs.extend_enumeration_values(survey.columns.enumerations())
    for source, dataset in zip(survey.sources, survey.datasets, strict=True):
        if dataset.n_obs:
            table = survey.columns.to_table(read_cells(source, dataset.first_joinid))
            with DataFrame.open(uri, "w", context=share_context()) as obs:
                obs.write(table)
