"""Bring a dataset's counts onto the atlas's genes, in the atlas's order."""

import logging
from pathlib import Path
from typing import Annotated, Any

import anndata as ad
import numpy as np
import pandas as pd

from tabatlas.counts import check_counts, read_counts, size_factors, write_h5ad
from tabatlas.genes import choose_atlas_genes, load_gene_table
from tabatlas.names import (
    DATASET_ID,
    FEATURE_ID,
    FEATURE_NAME,
    MEASURED,
    ORGANISM,
    SIZE_FACTOR,
    TOTAL_N,
)
from tabatlas.normalize.align import align_genes, find_lost
from tabatlas.normalize.digests import digest_cells, digest_genes
from tabatlas.normalize.settings import NormalizeSettings
from tabatlas.provenance import write_json

logger = logging.getLogger(__name__)


def run(
    cells: Annotated[Path, "h5ad of the kept cells (qc)"],
    settings: Annotated[Path, "settings/normalize.json"],
    normalized: Annotated[Path, "h5ad to write: int32 counts of the atlas's genes"],
    facts: Annotated[Path, "JSON to write: genes measured and lost, totals, digests"],
) -> None:
    """Bring integer counts onto the atlas's genes; add total_n, size factors, measured genes."""
    chosen = NormalizeSettings.read(settings)
    source = read_counts(cells)
    check_counts(source.X, f"{cells}: X")
    genes = choose_atlas_genes(chosen.genes, source.uns[ORGANISM])
    adata = normalize_cells(source, genes, str(cells))
    about = describe_genes(source, adata)
    log_genes(about)
    write_h5ad(adata, normalized)
    write_json(about, facts)


def normalize_cells(source: ad.AnnData, genes: pd.Index, place: str) -> ad.AnnData:
    """The cells of a filtered source on the atlas's genes, with totals and size factors."""
    feature_ids = source.var[FEATURE_ID].astype(str)
    counts = align_genes(source.X, feature_ids, genes, place)
    total_n = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    symbols = load_gene_table(source.uns[ORGANISM])[FEATURE_NAME]
    var = pd.DataFrame(
        {FEATURE_NAME: symbols.reindex(genes), MEASURED: genes.isin(feature_ids)}, index=genes
    )
    obs = source.obs.assign(**{TOTAL_N: total_n, SIZE_FACTOR: size_factors(total_n)})
    return ad.AnnData(X=counts, obs=obs, var=var, uns={ORGANISM: source.uns[ORGANISM]})


def describe_genes(source: ad.AnnData, adata: ad.AnnData) -> dict[str, Any]:
    """Sizes, totals and digests of a normalized dataset, and what of its source was lost."""
    total = int(adata.obs[TOTAL_N].sum())
    source_total = int(source.X.sum(dtype=np.float64))
    return {
        "dataset_id": str(source.obs[DATASET_ID].iloc[0]),
        "organism": source.uns[ORGANISM],
        "n_cells": adata.n_obs,
        "n_empty_cells": int((adata.obs[TOTAL_N] == 0).sum()),
        "n_genes": adata.n_vars,
        "n_measured": int(adata.var[MEASURED].sum()),
        "n_entries": int(adata.X.nnz),
        "total": total,
        "n_lost_genes": int(find_lost(source.var[FEATURE_ID], adata.var_names).sum()),
        "pct_lost_counts": 100 * (1 - total / source_total) if source_total else 0.0,
        "genes_digest": digest_genes(adata.var_names),
        "digest": digest_cells(adata),
    }


def log_genes(facts: dict[str, Any]) -> None:
    """Say which genes were measured and lost; warn of cells without any count left."""
    logger.info(
        "%s: %d of %d atlas genes measured; %d genes with %.1f %% of the counts left out",
        facts["dataset_id"],
        facts["n_measured"],
        facts["n_genes"],
        facts["n_lost_genes"],
        facts["pct_lost_counts"],
    )
    if facts["n_empty_cells"]:
        logger.warning(
            "%s: %d cells hold no count of an atlas gene",
            facts["dataset_id"],
            facts["n_empty_cells"],
        )
