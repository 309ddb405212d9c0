"""Write one dataset's counts and measured genes at their fixed places."""

import numpy as np
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
    """The registered dataset of a source; `IntegrityError` where it is not what was registered."""
    dataset = registry.find_dataset(source.dataset_id)
    if dataset is None:
        raise IntegrityError(
            f"{source.path}: dataset `{source.dataset_id}` is not registered. "
            "Run `tabatlas ingest register` with it."
        )
    genes = read_genes(source)
    found = {
        source.digest: dataset.digest,
        digest_frame(var_of(genes)): registry.var_digest,
        digest_genes(np.flatnonzero(genes[MEASURED])): dataset.measured_digest,
        digest_frame(read_cells(source, dataset.first_joinid)): dataset.obs_digest,
    }
    if any(digest != registered for digest, registered in found.items()):
        raise IntegrityError(
            f"{source.path}: dataset `{source.dataset_id}` changed since it was registered. "
            "Run `tabatlas ingest register` again."
        )
    return dataset


def append_dataset(
    experiment: Experiment, source: Source, dataset: Dataset, registry: Registry, block_entries: int
) -> CountsTally:
    """Write a dataset's rows of X and of the presence matrix; return what was written.

    What is already there stays, so a repeat is free of effect. Raises `InputError` for a damaged
    source.
    """
    rna = experiment.ms[MEASUREMENT]
    tally = CountsTally()
    total_n = read_cells(source, dataset.first_joinid)[TOTAL_N].to_numpy()
    for start, counts in read_blocks(source, block_entries):
        joinid = dataset.first_joinid + start
        store_rows(rna.X[RAW_LAYER], joinid, counts)
        if registry.normalized:
            scaled = log1p_cp10k(counts, total_n[start : start + counts.shape[0]])
            store_rows(rna.X[NORMALIZED_LAYER], joinid, scaled)
        tally.add(joinid, counts)
    store_rows(rna[PRESENCE], dataset.row, measured_row(source))
    return tally


def measured_row(source: Source) -> sp.csr_matrix:
    """The dataset's row of the presence matrix (CSR bool, 1 × g)."""
    return sp.csr_matrix(read_genes(source)[MEASURED].to_numpy()[None, :])
