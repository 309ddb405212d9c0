"""Measure and judge every cell of a dataset, and keep the good ones."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tabatlas.errors import show
from tabatlas.h5ad import read_axes, read_blocks, write_blocks
from tabatlas.names import (
    BATCH,
    CELL_TYPE,
    DATASET_ID,
    DOUBLET_SCORE,
    KEEP,
    N_GENES,
    OBS_ID,
    PCT_MT,
    TOTAL_COUNTS,
)
from tabatlas.provenance import write_json
from tabatlas.qc.judge import judge_cells
from tabatlas.qc.measure import measure_cells
from tabatlas.qc.settings import QCSettings
from tabatlas.qc.summarize import (
    count_reasons,
    describe_file,
    refuse_total_loss,
    summarize_samples,
)
from tabatlas.tables import write_table

logger = logging.getLogger(__name__)

METRICS = [N_GENES, TOTAL_COUNTS, PCT_MT, DOUBLET_SCORE]


def run(
    counts: Annotated[Path, "source h5ad (fetch)"],
    settings: Annotated[Path, "settings/qc.json"],
    cells: Annotated[Path, "h5ad of the kept cells to write"],
    table: Annotated[Path, "parquet to write: every cell, its metrics, verdict and reasons"],
    facts: Annotated[Path, "JSON to write: what was dropped and why, per sample"],
) -> None:
    """Measure and judge every cell; write the kept ones, a table of all, and a summary."""
    chosen = QCSettings.read(settings)
    axes = read_axes(counts)
    metrics = measure_cells(axes, read_blocks(counts))
    verdict, samples = judge_cells(counts, axes.n_vars, metrics, axes.obs[BATCH], chosen)
    judged = axes.obs[[BATCH, CELL_TYPE]].join(verdict)
    about = {
        "dataset_id": str(axes.obs[DATASET_ID].iloc[0]),
        "n_cells": axes.n_obs,
        "n_kept": int(judged[KEEP].sum()),
        "reasons": count_reasons(judged),
        "samples": summarize_samples(judged, samples),
        "notes": describe_file(axes, chosen),
    }
    log_losses(about)
    refuse_total_loss(about, str(counts))
    keep_n = judged[KEEP].to_numpy()
    kept = axes[keep_n].copy()
    kept.obs = kept.obs.join(judged[METRICS])
    with write_blocks(cells, axes.n_vars, np.float32) as file:
        for start, block in read_blocks(counts):
            file.append(block[keep_n[start : start + block.shape[0]]])
        file.finish(kept)
    write_table(judged.rename_axis(OBS_ID).reset_index(), table)
    write_json(about, facts)


def log_losses(facts: dict[str, Any]) -> None:
    """Say what was dropped and what could not be judged; warn of samples that are gone."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in facts["reasons"].items() if n)
    logger.info(
        "%s: kept %d of %d cells%s",
        facts["dataset_id"],
        facts["n_kept"],
        facts["n_cells"],
        f" ({reasons})" if reasons else "",
    )
    for note in facts["notes"]:
        logger.info("%s: %s", facts["dataset_id"], note)
    noted = sum(bool(sample["note"]) for sample in facts["samples"])
    if noted:
        logger.info("%d of %d samples: not all could be judged", noted, len(facts["samples"]))
    for sample in facts["samples"]:
        if not sample["n_kept"]:
            logger.warning(
                "sample %s of %d cells is gone", show(sample["batch"]), sample["n_cells"]
            )
