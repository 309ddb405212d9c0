"""Write one dataset's counts and measured genes at their fixed places."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from tiledbsoma import Experiment

from tabatlas.counts import log1p_cp10k
from tabatlas.errors import IntegrityError
from tabatlas.ingest.blocks import store_rows
from tabatlas.ingest.digests import CountsTally, digest_frame, digest_genes
from tabatlas.ingest.registry import Dataset, Registry
from tabatlas.ingest.sources import Source, read_blocks, read_cells, read_genes, var_of
from tabatlas.names import MEASURED, MEASUREMENT, NORMALIZED_LAYER, PRESENCE, RAW_LAYER, TOTAL_N


def find_registered(source: Source, registry: Registry) -> Dataset:
    """The registered dataset of a source. Raises `IntegrityError` where there is none."""
    for dataset in registry.datasets:
        if dataset.dataset_id == source.dataset_id:
            return dataset
    raise IntegrityError(
        f"{source.path}: dataset `{source.dataset_id}` is not registered. "
        "Run `tabatlas ingest register` with it."
    )


def check_unchanged(
    source: Source, cells: pd.DataFrame, genes: pd.DataFrame, dataset: Dataset, registry: Registry
) -> None:
    """Raise `IntegrityError` unless facts, obs and var of a source are as registered."""
    found = {
        source.digest: dataset.digest,
        digest_frame(cells): dataset.obs_digest,
        digest_frame(var_of(genes)): registry.var_digest,
        digest_genes(np.flatnonzero(genes[MEASURED])): dataset.measured_digest,
    }
    if any(digest != registered for digest, registered in found.items()):
        raise IntegrityError(
            f"{source.path}: dataset `{source.dataset_id}` changed since it was registered. "
            "Run `tabatlas ingest register` again."
        )


def append_dataset(
    experiment: Experiment, source: Source, registry: Registry, block_entries: int
) -> CountsTally:
    """Write a dataset's rows of X and of the presence matrix; return what they hold.

    What is already there stays, so a repeat has no effect. Raises `IntegrityError` where the
    source is not what was registered, `InputError` where its matrix is damaged.
    """
    dataset = find_registered(source, registry)
    cells, genes = read_cells(source, dataset.first_joinid), read_genes(source)
    check_unchanged(source, cells, genes, dataset, registry)
    rna, tally = experiment.ms[MEASUREMENT], CountsTally()
    for start, counts in read_blocks(source, block_entries):
        joinid = dataset.first_joinid + start
        store_rows(rna.X[RAW_LAYER], joinid, counts)
        if registry.normalized:
            total_n = cells[TOTAL_N].to_numpy()[start : start + counts.shape[0]]
            store_rows(rna.X[NORMALIZED_LAYER], joinid, log1p_cp10k(counts, total_n))
        tally.add(joinid, counts)
    if tally.total != dataset.total:
        raise IntegrityError(
            f"{source.path}: total counts {tally.total}, {dataset.total} registered. "
            "The file changed; run `normalize` and `ingest` again."
        )
    measured = sp.csr_matrix(genes[MEASURED].to_numpy()[None, :])
    store_rows(rna[PRESENCE], dataset.row, measured)
    return tally
