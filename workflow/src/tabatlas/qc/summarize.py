"""Summarize what was dropped and why: the facts of a dataset."""

from typing import Any

import anndata as ad
import pandas as pd

from tabatlas.errors import InputError
from tabatlas.names import BATCH, KEEP, N_GENES, PCT_MT, REASON, TOTAL_COUNTS
from tabatlas.qc.measure import find_mitochondrial
from tabatlas.qc.outliers import is_panel
from tabatlas.qc.settings import QCSettings

# Every reason to drop a cell, and the knob that decides it.
KNOBS = {
    "low_counts": "`qc.min_counts`",
    "high_counts": "`qc.max_counts`",
    "low_genes": "`qc.min_genes` (panels: `qc.panel_min_genes`)",
    "high_mt": "`qc.max_pct_mt`",
    "outlier_counts": "`qc.mads_counts`",
    "outlier_genes": "`qc.mads_genes`",
    "outlier_mt": "`qc.mads_mt`",
    "doublet": "`qc.doublets`",
}


def count_reasons(cells: pd.DataFrame) -> dict[str, int]:
    """How many cells each reason stands against; a cell may have several."""
    found = cells[REASON].str.split(";").explode().value_counts()
    return {reason: int(found.get(reason, 0)) for reason in KNOBS}


def summarize_samples(
    cells: pd.DataFrame, samples: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Sizes, and medians over all cells, of every sample, and what `judge_cells` says of it."""
    facts = []
    for name, sample in cells.groupby(BATCH, observed=True):
        n_kept = int(sample[KEEP].sum())
        notes = [samples[name]["note"]] + ["every cell is dropped"] * (n_kept == 0)
        facts.append(
            {
                "batch": name,
                "n_cells": len(sample),
                "n_kept": n_kept,
                "median_counts": float(sample[TOTAL_COUNTS].median()),
                "median_genes": float(sample[N_GENES].median()),
                "median_pct_mt": float(sample[PCT_MT].median()),
                "doublet_threshold": samples[name]["doublet_threshold"],
                "note": "; ".join(note for note in notes if note),
            }
        )
    return facts


def describe_file(axes: ad.AnnData, settings: QCSettings) -> list[str]:
    """What could not be judged in the whole file."""
    notes = []
    if not find_mitochondrial(axes.var).any():
        notes.append(f"no mitochondrial gene in the file: {PCT_MT} is 0 and judges nobody")
    if is_panel(axes.n_vars, settings):
        notes.append(
            f"{axes.n_vars} genes are no whole transcriptome: cells need "
            f"{settings.panel_min_genes} of them (panel_min_genes)"
        )
    return notes


def refuse_total_loss(facts: dict[str, Any], place: str) -> None:
    """Raise `InputError` where no cell is left."""
    if facts["n_kept"]:
        return
    reasons = {reason: n for reason, n in facts["reasons"].items() if n}
    counted = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    knob = KNOBS[max(reasons, key=reasons.__getitem__)]
    raise InputError(
        f"{place}: quality control drops all {facts['n_cells']} cells ({counted}). "
        f"Change {knob} in the config, or leave the dataset out."
    )
