"""Read an experiment back, compare it with what was registered and appended, and digest it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tiledbsoma import Experiment

from tabatlas.counts import log1p_cp10k
from tabatlas.errors import IntegrityError
from tabatlas.ingest.blocks import READ_ENTRIES, read_rows, same_rows
from tabatlas.ingest.digests import CountsTally, digest_frame, digest_genes
from tabatlas.ingest.registry import Dataset, Registry
from tabatlas.names import MEASUREMENT, NORMALIZED_LAYER, PRESENCE, RAW_LAYER, TOTAL_N
from tabatlas.provenance import digest_json


@dataclass(frozen=True)
class Receipt:
    """What an `append` wrote, and into the experiment of which sources."""

    dataset_id: str
    sources_digest: str
    n_obs: int
    n_entries: int
    total: int
    counts_digest: str


def pin_moment() -> int:
    """A timestamp (ms) that is over: what is written from now on gets a later one."""
    moment = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= moment:
        time.sleep(0.001)
    return moment


def match_receipts(registry: Registry, receipts: Sequence[Receipt]) -> dict[str, Receipt]:
    """The receipt of every registered dataset. Raises `IntegrityError` where one lacks."""
    matched = {receipt.dataset_id: receipt for receipt in receipts}
    for dataset in registry.datasets:
        receipt = matched.get(dataset.dataset_id)
        if receipt is None or receipt.sources_digest != registry.sources_digest:
            state = "was not appended" if receipt is None else "was appended to another experiment"
            raise IntegrityError(
                f"{dataset.dataset_id}: {state}. Run `tabatlas ingest append` for it."
            )
    return matched


def verify_experiment(
    experiment: Experiment, registry: Registry, receipts: Mapping[str, Receipt]
) -> str:
    """Compare all that the experiment holds with the registry and the receipts; digest it.

    Returns the sha256 of var and of each dataset's obs, (joinid, gene, count) and measured genes
    in order. Raises `IntegrityError` naming dataset and quantity.
    """
    rna = experiment.ms[MEASUREMENT]
    var = digest_frame(rna.var.read().concat().to_pandas())
    compare("all datasets", "cells", experiment.obs.count, registry.n_obs)
    compare("all datasets", "genes", var, registry.var_digest)
    shape = (registry.n_obs, registry.n_vars)
    for layer, array in rna.X.items():
        # Rows beyond those of obs belong to no dataset: nothing below would see them.
        compare("all datasets", f"shape of X/{layer}", array.shape, shape)
    contents = []
    for dataset in registry.datasets:
        stored = read_dataset(experiment, dataset, registry.normalized)
        receipt = receipts[dataset.dataset_id]
        for quantity, found, wanted in (
            ("obs", digest_frame(stored.obs), dataset.obs_digest),
            ("entries", stored.tally.n_entries, dataset.n_entries),
            ("total counts", stored.tally.total, dataset.total),
            ("counts", stored.tally.digest(), receipt.counts_digest),
            ("wrong normalized blocks", stored.n_wrong_blocks, 0),
            ("measured genes", digest_genes(stored.measured), dataset.measured_digest),
        ):
            compare(dataset.dataset_id, quantity, found, wanted)
        contents.append([dataset.obs_digest, receipt.counts_digest, dataset.measured_digest])
    return digest_json({"organism": registry.organism, "var": var, "datasets": contents})


def compare(place: str, quantity: str, found: Any, wanted: Any) -> None:
    """Raise `IntegrityError` where the experiment holds something else than it should."""
    if found != wanted:
        raise IntegrityError(
            f"{place}: {quantity}: {found} in the experiment, {wanted} in the sources. "
            "Run `tabatlas ingest append` for it again; if that does not help, delete the "
            "experiment and run `tabatlas ingest` again."
        )


@dataclass(frozen=True)
class Stored:
    """What an experiment holds of a dataset.

    `n_wrong_blocks` counts those of the normalized layer that are not the counts' log1p(CP10k);
    `measured` holds gene indices.
    """

    obs: pd.DataFrame
    tally: CountsTally
    n_wrong_blocks: int
    measured: np.ndarray


def read_dataset(experiment: Experiment, dataset: Dataset, normalized: bool) -> Stored:
    """Read all that an experiment holds of a dataset, block by block.

    Raises `IntegrityError` where obs lacks a cell.
    """
    rna = experiment.ms[MEASUREMENT]
    rows = slice(dataset.first_joinid, dataset.stop_joinid - 1)
    obs = experiment.obs.read((rows,)).concat().to_pandas()
    compare(dataset.dataset_id, "cells", len(obs), dataset.n_obs)
    tally, n_wrong_blocks = CountsTally(), 0
    for start, stop in divide_joinids(dataset):
        counts = read_rows(rna.X[RAW_LAYER], start, stop)
        tally.add(start, counts)
        if normalized:
            total_n = obs[TOTAL_N].to_numpy()[start - rows.start : stop - rows.start]
            stored = read_rows(rna.X[NORMALIZED_LAYER], start, stop)
            # The last bit of a logarithm depends on the processor: append may have run on another.
            n_wrong_blocks += not same_rows(stored, log1p_cp10k(counts, total_n), rtol=1e-6)
    presence = read_rows(rna[PRESENCE], dataset.row, dataset.row + 1)
    return Stored(obs, tally, n_wrong_blocks, presence.indices[presence.data])


def divide_joinids(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Divide a dataset's joinids into runs of about `READ_ENTRIES` counts."""
    n_rows = max(1, READ_ENTRIES * dataset.n_obs // max(1, dataset.n_entries))
    for start in range(dataset.first_joinid, dataset.stop_joinid, n_rows):
        yield start, min(start + n_rows, dataset.stop_joinid)
