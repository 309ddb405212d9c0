"""Bring a dataset's counts onto the atlas's genes, in the atlas's order."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.counts import check_counts, size_factors
from tabatlas.genes import choose_atlas_genes, load_gene_table
from tabatlas.h5ad import read_axes, read_blocks, write_blocks
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
from tabatlas.normalize.digests import CountsDigest, digest_cells, digest_genes
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
    source = read_axes(cells)
    genes = choose_atlas_genes(chosen.genes, source.uns[ORGANISM])
    about = normalize_cells(source, read_blocks(cells), genes, str(cells), normalized)
    log_genes(about)
    write_json(about, facts)


def normalize_cells(
    source: ad.AnnData,
    blocks: Iterable[tuple[int, sp.csr_matrix]],
    genes: pd.Index,
    place: str,
    path: Path,
) -> dict[str, Any]:
    """Write the cells of a filtered source on the atlas's genes; return what was kept and lost.

    `blocks` are its counts, whatever the AnnData holds.
    """
    feature_ids = source.var[FEATURE_ID].astype(str)
    source_total, totals, digest = 0, [], CountsDigest()
    with write_blocks(path, len(genes), np.int32) as file:
        for _, counts in blocks:
            check_counts(counts, f"{place}: X")
            aligned = align_genes(counts, feature_ids, genes, place)
            source_total += int(counts.sum(dtype=np.float64))
            totals.append(np.asarray(aligned.sum(axis=1, dtype=np.int64)).ravel())
            digest.add(aligned)
            file.append(aligned)
        axes = describe_axes(source, genes, np.concatenate(totals))
        file.finish(axes)
    return describe_genes(source, source_total, axes, digest)


def describe_axes(source: ad.AnnData, genes: pd.Index, total_n: np.ndarray) -> ad.AnnData:
    """The cells of a filtered source with totals and size factors, and the atlas's genes."""
    symbols = load_gene_table(source.uns[ORGANISM])[FEATURE_NAME]
    measured = genes.isin(source.var[FEATURE_ID].astype(str))
    var = pd.DataFrame({FEATURE_NAME: symbols.reindex(genes), MEASURED: measured}, index=genes)
    obs = source.obs.assign(**{TOTAL_N: total_n, SIZE_FACTOR: size_factors(total_n)})
    return ad.AnnData(obs=obs, var=var, uns={ORGANISM: source.uns[ORGANISM]})


def describe_genes(
    source: ad.AnnData, source_total: int, axes: ad.AnnData, counts: CountsDigest
) -> dict[str, Any]:
    """Sizes, totals and digests of a normalized dataset, and what of its source was lost."""
    total = int(axes.obs[TOTAL_N].sum())
    return {
        "dataset_id": str(source.obs[DATASET_ID].iloc[0]),
        "organism": source.uns[ORGANISM],
        "n_cells": axes.n_obs,
        "n_empty_cells": int((axes.obs[TOTAL_N] == 0).sum()),
        "n_genes": axes.n_vars,
        "n_measured": int(axes.var[MEASURED].sum()),
        "n_entries": counts.n_entries,
        "total": total,
        "n_lost_genes": int(find_lost(source.var[FEATURE_ID], axes.var_names).sum()),
        "pct_lost_counts": 100 * (1 - total / source_total) if source_total else 0.0,
        "genes_digest": digest_genes(axes.var_names),
        "digest": digest_cells(axes, counts),
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
