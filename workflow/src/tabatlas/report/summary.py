"""The plain dict that holds every number of the page; it is also `report.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabatlas.errors import InputError
from tabatlas.report.cautions import find_cautions
from tabatlas.report.integration import summarize_integration
from tabatlas.report.perturbation import summarize_perturbation
from tabatlas.report.settings import ReportSettings
from tabatlas.report.verdict import judge_model

FORMAT = 1
N_CONFUSIONS = 10  # rows of the table beside the confusion matrix

Table = dict[str, Any]


@dataclass(frozen=True)
class StageTables:
    """What the stages wrote; `fetch`, `qc` and `normalize` hold one table per dataset."""

    fetch: Sequence[Table]
    qc: Sequence[Table]
    normalize: Sequence[Table]
    manifest: Table
    split: Table
    pretrain_metrics: Sequence[Table]
    pretrain_scores: Table
    finetune_metrics: Sequence[Table]
    finetune_scores: Table
    integrate_scores: Table
    integrate_layout: Table
    perturb_scores: Table
    explain_scores: Table
    bundle: Table


def summarize_atlas(tables: StageTables, settings: ReportSettings) -> Table:
    """Everything that the page shows, except what differs between two runs.

    Raises `InputError` where a dataset of the atlas lacks a table.
    """
    datasets = join_datasets(tables)
    summary = {
        "format": FORMAT,
        "title": settings.title or tables.bundle["name"],
        "atlas": summarize_cells(datasets, tables.manifest),
        "datasets": datasets,
        "split": summarize_split(tables.split),
        "pretraining": summarize_pretraining(tables.pretrain_metrics, tables.pretrain_scores),
        "finetuning": summarize_finetuning(tables.finetune_metrics, tables.finetune_scores),
        "test": summarize_test(tables.finetune_scores),
        "integration": summarize_integration(tables.integrate_scores, tables.integrate_layout),
        "perturbation": summarize_perturbation(tables.perturb_scores),
        "explanation": tables.explain_scores,
        "bundle": tables.bundle,
    }
    summary["cautions"] = find_cautions(summary, settings)
    summary["verdict"] = judge_model(summary)
    return summary


def join_datasets(tables: StageTables) -> list[Table]:
    """One table per dataset, in the order of the atlas: found, kept, normalized."""
    found, kept, normalized = (
        {table["dataset_id"]: table for table in group}
        for group in (tables.fetch, tables.qc, tables.normalize)
    )
    names = [dataset["dataset_id"] for dataset in tables.manifest["datasets"]]
    for stage, group in (("fetch", found), ("qc", kept), ("normalize", normalized)):
        missing = [name for name in names if name not in group]
        if missing:
            raise InputError(
                f"{stage} has no table of {len(missing)} of {len(names)} datasets of the atlas "
                f"(first: {missing[0]!r}). Give --{stage} the table of every dataset."
            )
    return [join_dataset(found[name], kept[name], normalized[name]) for name in names]


def join_dataset(found: Table, kept: Table, normalized: Table) -> Table:
    """What the three stages before the experiment say about one dataset."""
    measured = ("n_measured", "n_lost_genes", "pct_lost_counts")
    return {
        **found,
        **{key: kept[key] for key in ("n_kept", "reasons", "samples")},
        "notes": kept.get("notes", []),
        **{key: normalized[key] for key in measured},
    }


def summarize_cells(datasets: Sequence[Table], manifest: Table) -> Table:
    """Size of the atlas, and what of the sources it holds."""
    reasons = [reason for dataset in datasets for reason, n in dataset["reasons"].items() if n]
    return {
        "organism": manifest["organism"],
        "n_datasets": len(datasets),
        "n_source_cells": sum(dataset["n_cells"] for dataset in datasets),
        "n_labelled": sum(dataset["n_labelled"] for dataset in datasets),
        "n_cells": manifest["n_obs"],
        "n_genes": manifest["n_vars"],
        "n_entries": manifest["n_entries"],
        "total": manifest["total"],
        "digest": manifest["digest"],
        "genes_digest": manifest["genes_digest"],
        "reasons": sorted(set(reasons)),
        "composition": count_labels(datasets),
    }


def count_labels(datasets: Sequence[Table]) -> Table:
    """Cells per dataset (rows) and label (columns, commonest first), as found in the sources."""
    totals: dict[str, int] = {}
    for dataset in datasets:
        for label, n in dataset["labels"].items():
            totals[label] = totals.get(label, 0) + n
    labels = sorted(totals, key=lambda label: (-totals[label], label))
    counts = [[dataset["labels"].get(label, 0) for label in labels] for dataset in datasets]
    return {"labels": labels, "counts": counts}


def summarize_split(split: Table) -> Table:
    """The split's own table, its classes as rows, commonest first."""
    classes = [{"label": label, **counts} for label, counts in split["classes"].items()]
    parts = ("train", "validation", "test")
    classes.sort(key=lambda row: (-sum(row[part] for part in parts), row["label"]))
    return {**split, "classes": classes}


def summarize_pretraining(metrics: Sequence[Table], scores: Table) -> Table:
    """Scores of pretraining and its curves; `trained` is false where it took no step."""
    measured = (
        "masked_loss",
        "gene_mean_loss",
        "ratio",
        "n_validation_cells",
        "n_genes",
        "n_parameters",
    )
    return {
        **{key: scores.get(key) for key in measured},
        "trained": bool(metrics),
        "best_epoch": count_epoch(scores.get("best_epoch")),
        "train_loss": trace_curve(metrics, "train_loss"),
        "validation_loss": trace_curve(metrics, "validation_loss"),
    }


def summarize_finetuning(metrics: Sequence[Table], scores: Table) -> Table:
    """Curves of fine-tuning, and how it was stopped and calibrated."""
    return {
        "early_stop_unit": scores.get("early_stop_unit"),
        "temperature": scores.get("temperature"),
        "best_epoch": count_epoch(scores.get("best_epoch")),
        "train_loss": trace_curve(metrics, "train_loss"),
        "validation_loss": trace_curve(metrics, "validation_loss"),
        "validation_macro_f1": trace_curve(metrics, "validation_macro_f1"),
    }


def trace_curve(metrics: Sequence[Table], key: str) -> list[list[float]]:
    """Points (epoch, value) of one metric, epochs counted from 1."""
    return [[row["epoch"] + 1, row[key]] for row in metrics if row.get(key) is not None]


def count_epoch(epoch: int | None) -> int | None:
    """An epoch counted from 1; None where no epoch was run."""
    return None if epoch is None or epoch < 0 else epoch + 1


def summarize_test(scores: Table) -> Table:
    """Test scores; what was not tested is None or empty."""
    sizes = ("n_test_cells", "n_test_donors", "n_classes", "n_unseen_test_cells")
    methods = scores.get("methods") or {}
    confusion = scores.get("confusion") or {"labels": [], "counts": []}
    return {
        **{key: scores.get(key) for key in sizes},
        "bootstrap_unit": scores.get("bootstrap_unit"),
        "methods": {
            name: method
            for name, method in methods.items()
            if method and method["macro_f1"]["value"] is not None
        },
        "per_class": scores.get("per_class") or [],
        "confusion": confusion,
        "commonest_confusions": rank_confusions(**confusion),
        "reliability": scores.get("reliability") or [],
        "rejection": (scores.get("rejection") or {}).get("sets", []),
    }


def rank_confusions(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[Table]:
    """The commonest errors: true label, predicted label, cells, share of the true label's cells."""
    errors = [
        {"true": labels[i], "predicted": labels[j], "n_cells": n, "share": n / sum(row)}
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(errors, key=lambda error: -error["n_cells"])[:N_CONFUSIONS]
