"""Made-up outputs of all stages, of the shape and size that the real ones have."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from integration_inputs import make_integration, make_layout
from perturbation_inputs import make_perturbation

from tabatlas.report.stage import run
from tabatlas.report.summary import StageTables

# In ontology order.
TYPES = {
    "B cell": "CL:0000236",
    "plasma cell": "CL:0000786",
    "CD4-positive, alpha-beta T cell": "CL:0000624",
    "CD8-positive, alpha-beta T cell": "CL:0000625",
    "natural killer cell": "CL:0000623",
    "classical monocyte": "CL:0000860",
    "non-classical monocyte": "CL:0000875",
    "dendritic cell": "CL:0000451",
}
# Labels that try to be markup, code or formulas, or are long.
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd|' /C calc'!A0",
    "🧬 B-Zelle 細胞",
    "line\nbreak\ttab",
    "x" * 300,
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='alert(1)",
)
REASONS = (
    "low_counts",
    "high_counts",
    "low_genes",
    "high_mt",
    "outlier_counts",
    "outlier_genes",
    "outlier_mt",
    "doublet",
)
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def make_tables(
    types: dict[str, str] = TYPES,
    datasets: tuple[str, ...] = ("blood_a", "blood_b", "panel_c", "screen_d"),
    n_samples: int = 3,
) -> StageTables:
    """Tables of an atlas with these cell types and datasets."""
    rng = np.random.default_rng(0)
    labels = list(types)
    return StageTables(
        fetch=[make_fetch(name, labels, rng) for name in datasets],
        qc=[make_qc(name, n_samples, rng) for name in datasets],
        normalize=[make_normalize(name) for name in datasets],
        manifest={
            "organism": "Homo sapiens",
            "n_obs": 1390 * len(datasets),
            "n_vars": 2000,
            "n_entries": 2_412_345,
            "total": 14_203_911,
            "digest": "3f" * 32,
            "genes_digest": "a1" * 32,
            "datasets": [{"dataset_id": name} for name in datasets],
        },
        split=make_split(labels),
        pretrain_metrics=make_metrics(30, 0.92, 0.61),
        pretrain_scores={
            "masked_loss": 0.655,
            "gene_mean_loss": 0.842,
            "ratio": 0.778,
            "n_validation_cells": 560,
            "n_genes": 2000,
            "best_epoch": 26,
            "n_parameters": 1_284_112,
        },
        finetune_metrics=[
            row
            | (
                {"validation_macro_f1": 0.95 - 0.6 / (1 + row["epoch"])}
                if "validation_loss" in row
                else {}
            )
            for row in make_metrics(18, 2.0, 0.22)
        ],
        finetune_scores=make_scores(types, rng),
        integrate_scores=make_integration(rng),
        integrate_layout=make_layout(labels, datasets, rng),
        perturb_scores=make_perturbation(),
        explain_scores=make_explanation(types),
        bundle={
            "name": "demo",
            "version": "0.1.0+5b1f0c9e77d2",
            "path": "demo@0.1.0+5b1f0c9e77d2",
            "files": {"model.safetensors": "0c" * 32, "genes.parquet": "7d" * 32},
            "stages": {"fetch": "ab12" * 4, "qc": "cd34" * 4, "pretrain": "ef56" * 4},
            "settings": {
                "qc": {"min_counts": 500, "max_counts": None, "doublets": True},
                "split": {"held_out_datasets": [], "seed": 0},
                "pretrain": {"epochs": 30, "learning_rate": 0.002, "mask_type": "entmax"},
            },
        },
    )


def make_fetch(name: str, labels: list[str], rng: np.random.Generator) -> dict[str, Any]:
    n_labelled = 1450
    shares = rng.dirichlet(np.full(len(labels), 2.0))
    return {
        "dataset_id": name,
        "source": f"simulate:{name}",
        "sha256": "9e" * 32,
        "organism": "Homo sapiens",
        "n_cells": 1500,
        "n_genes": 2000,
        "counts": "layers/counts" if name.endswith("b") else "X",
        "gene_ids": "symbol" if name.endswith("c") else "ensembl",
        "n_mapped": 1962,
        "n_unmapped": 38,
        "n_merged": 4,
        "n_labelled": n_labelled,
        "unmapped_labels": [],
        "labels": {
            label: int(n)
            for label, n in zip(labels, rng.multinomial(n_labelled, shares), strict=True)
        },
        "n_donors": 7,
        "n_batches": 3,
    }


def make_qc(name: str, n_samples: int, rng: np.random.Generator) -> dict[str, Any]:
    n_cells = np.full(n_samples, 1500 // n_samples)
    n_kept = n_cells - rng.integers(10, 50, n_samples)
    dropped = int((n_cells - n_kept).sum())
    reasons = dict.fromkeys(REASONS, 0) | {
        "low_counts": dropped // 3,
        "outlier_mt": dropped // 2,
        "doublet": dropped // 3,
    }
    return {
        "dataset_id": name,
        "n_cells": 1500,
        "n_kept": 1500 - dropped,
        "reasons": reasons,
        "samples": [
            {
                "batch": f"{name}_lane{number + 1}",
                "n_cells": int(n_cells[number]),
                "n_kept": int(n_kept[number]),
                "median_counts": float(rng.integers(2800, 5200)),
                "median_genes": float(rng.integers(700, 1100)),
                "median_pct_mt": float(rng.uniform(2, 6)),
                "doublet_threshold": None if number else 0.274,
                "note": "no doublet threshold found: none dropped" if number else "",
            }
            for number in range(n_samples)
        ],
        "notes": ["2000 genes: a panel, 200 genes a cell are enough"],
    }


def make_normalize(name: str) -> dict[str, Any]:
    return {
        "dataset_id": name,
        "n_measured": 1370 if name.endswith("c") else 1958,
        "n_lost_genes": 4,
        "pct_lost_counts": 3.4,
    }


def make_split(labels: list[str]) -> dict[str, Any]:
    return {
        "seed": 0,
        "unit": "donors",
        "validation_unit": "donors",
        "parts": {
            "train": {"n_cells": 3910, "n_donors": 13, "n_labelled": 3780},
            "validation": {"n_cells": 560, "n_donors": 2, "n_labelled": 541},
            "test": {"n_cells": 1001, "n_donors": 5, "n_labelled": 967},
            "excluded": {"n_cells": 89, "n_donors": 2, "n_labelled": 0},
        },
        "classes": {
            label: {"train": 900 // (i + 1), "validation": 120 // (i + 1), "test": 240 // (i + 1)}
            for i, label in enumerate(labels)
        },
        "held_out_datasets": [],
        "n_duplicates": 37,
        "n_held_out_perturbations": 6,
        "notes": ["test drawn by whole donors", "validation drawn by whole donors"],
    }


def make_metrics(n_epochs: int, first: float, last: float) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(n_epochs):
        loss = last + (first - last) * math.exp(-epoch / (n_epochs / 5))
        place = {"epoch": epoch, "step": 2 * epoch + 2}
        rows += [
            {"epoch": epoch, "step": 2 * epoch + step, "loss": loss, "gradient_norm": 1.0}
            for step in (1, 2)
        ]
        rows.append(place | {"train_loss": loss, "validation_loss": loss + 0.04 + 0.0004 * epoch})
    return rows


def make_rejection(cells: str, assigned: float, accuracy: float | None) -> dict[str, Any]:
    shares = {"assigned": assigned, "unknown": 1 - assigned, "low_quality": 0.0}
    return {"cells": cells, "n_cells": 500, "accuracy_assigned": accuracy} | shares


def make_scores(types: dict[str, str], rng: np.random.Generator) -> dict[str, Any]:
    labels = list(types)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    for row in range(len(labels)):
        near = np.exp(-np.abs(np.arange(len(labels)) - row) * 2.6)
        counts[row] = rng.multinomial(max(240 // (row + 1), 12), near / near.sum())
    right = counts.diagonal()
    f1 = 2 * right / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    scores = {"precision": 0.93, "recall": 0.91}
    return {
        "n_test_cells": int(counts.sum()),
        "n_test_donors": 5,
        "n_classes": len(labels),
        "bootstrap_unit": "donors",
        "early_stop_unit": "donors",
        "temperature": 1.214,
        "best_epoch": 14,
        "rejection": {
            "sets": [
                make_rejection("test", 0.98, 0.93),
                make_rejection("permuted_genes", 0.03, None),
            ]
        },
        "methods": {
            "tabnet": make_method(0.934, 0.912, 0.951, 0.021),
            "logistic_regression": make_method(0.941, 0.921, 0.957, 0.034),
            "majority": make_method(0.048, 0.041, 0.055, 0.301),
        },
        "per_class": [
            {
                "label": label,
                "ontology_term_id": types[label],
                "n_train": 900 // (i + 1),
                "n_test": int(counts[i].sum()),
                "tabnet": scores | {"f1": float(f1[i]), "f1_ontology": float(f1[i])},
                "logistic_regression": scores
                | {"f1": min(float(f1[i]) + 0.02, 1.0), "f1_ontology": 0.95},
            }
            for i, label in enumerate(labels)
        ],
        "confusion": {"labels": labels, "counts": counts.tolist()},
        "reliability": [
            {"confidence": c, "accuracy": min(c * 0.98 + 0.01, 1), "n_cells": int(900 * c**9) + 3}
            for c in (0.31, 0.44, 0.52, 0.58, 0.66, 0.71, 0.78, 0.85, 0.92, 0.985)
        ],
        "n_unseen_test_cells": 0,
        "notes": [],
    }


def make_explanation(types: dict[str, str]) -> dict[str, Any]:
    labels = list(types)
    genes = [f"GENE{number}" for number in range(len(labels))]
    values = [[0.03 * 0.5 ** abs(i - j) for j in range(len(genes))] for i in range(len(labels))]
    stability = {
        "jaccard": 0.41,
        "jaccard_chance": 0.005,
        "jaccard_bound": 0.053,
        "jaccard_other_types": 0.06,
        "spearman": 0.62,
        "spearman_chance": 0.044,
    }
    return {
        "part": "test",
        "n_cells": 605,
        "n_donors": 5,
        "n_top": 20,
        "min_stability": 0.1,
        "accuracy": [0.917, 0.894, 0.896],
        "covariates": {},
        "shared_genes": [],
        "selection": {
            "n_measured": 2000.0,
            "n_selected": 1275.2,
            "n_expressed": 627.4,
            "steps": [{"n_selected": 888.8, "n_expressed": 436.0}] * 2,
        },
        "types": [
            {
                "label": label,
                "ontology_term_id": types[label],
                "n_sampled": 100,
                "n_cells": 83,
                "stability": dict.fromkeys(("weighted", "plain"), stability | {"n_stable": 7}),
                "stable": True,
                "stable_genes": genes[number : number + 2],
                "markers": make_agreement() | {"n_markers": 102, "n_genes": 1998},
            }
            for number, label in enumerate(labels)
        ],
        "stability": {"n_types": len(labels), "n_stable": len(labels)}
        | dict.fromkeys(("weighted", "plain"), stability),
        "markers": {
            "n_rows": 978,
            "n_other_types": 0,
            "n_unknown_genes": 3,
            "overall": make_agreement() | {"n_types": len(labels)},
        },
        "deletion": {
            "bootstrap_unit": "donors",
            "n_draws": 5,
            "curve": [
                {"n_hidden": n, "mean_hidden": n} | make_deletion(n) for n in (1, 2, 5, 10, 20, 50)
            ],
            "mean": make_deletion(15),
            "mean_expression": {"tabnet": 1.24, "control": 1.25},
        },
        "heatmaps": {
            "types": {"rows": labels, "columns": genes, "values": values},
            "steps": {"rows": ["step 1", "step 2"], "columns": genes, "values": values[:1] * 2},
        },
    }


def make_agreement() -> dict[str, Any]:
    chance = {"matched": 0.083, "matched_share": 0.01}
    auprc = {
        "weighted": 0.093,
        "plain": 0.094,
        "logistic_regression": 0.346,
        "logistic_regression_unsigned": 0.25,
    }
    return {
        "prevalence": 0.05,
        "methods": {name: {"auprc": value} | chance for name, value in auprc.items()},
        "differences": {"logistic_regression": {"value": -0.25, "low": -0.37, "high": -0.13}},
    }


def make_deletion(n_hidden: int) -> dict[str, Any]:
    lost = 0.02 * n_hidden**0.5
    return {
        "tabnet": lost,
        "control": 0.001,
        "logistic_regression": 3 * lost,
        "tabnet_over_control": {"value": lost - 0.001, "low": 0.8 * lost, "high": 1.2 * lost},
        "tabnet_over_logistic_regression": {
            "value": -2 * lost,
            "low": -2.2 * lost,
            "high": -1.8 * lost,
        },
    }


def make_method(value: float, low: float, high: float, ece: float) -> dict[str, Any]:
    return {
        "macro_f1": {"value": value, "low": low, "high": high},
        "macro_f1_ontology": {"value": value + 0.01, "low": low + 0.01, "high": high + 0.01},
        "accuracy": value + 0.004,
        "ece": ece,
        "nll": 0.19 + ece,
    }


def leave_untested(tables: StageTables) -> StageTables:
    """The same atlas without a labelled test cell."""
    scores = {
        "n_test_cells": 0,
        "methods": None,
        "n_classes": 8,
        "temperature": 1.0,
        "best_epoch": 3,
        "early_stop_unit": "cells",
    }
    return replace(tables, finetune_scores=scores)


def write_tables(tables: StageTables, folder: Path, settings: dict[str, Any] | None = None) -> dict:
    """Write the files of all stages; returns the parameters of the stage's `run`."""
    paths: dict[str, Any] = {
        name: folder / name for name in ("benchmarks", "html", "json", "run", "settings")
    }
    for name, value in asdict(tables).items():
        if name.endswith("_metrics"):
            paths[name] = folder / f"{name}.jsonl"
            paths[name].write_text("".join(json.dumps(row) + "\n" for row in value))
        elif name == "integrate_layout":
            paths[name] = folder / f"{name}.parquet"
            pd.DataFrame(value).to_parquet(paths[name])
        elif isinstance(value, list):
            paths[name] = [folder / f"{name}_{number}.json" for number in range(len(value))]
            for path, table in zip(paths[name], value, strict=True):
                path.write_text(json.dumps(table))
        else:
            paths[name] = folder / f"{name}.json"
            paths[name].write_text(json.dumps(value))
    paths["settings"].write_text(json.dumps(settings or {}))
    write_benchmarks(paths["benchmarks"])
    return paths | {"html": folder / "index.html"}


def write_benchmarks(folder: Path) -> None:
    """Benchmark files as Snakemake writes them."""
    for number, job in enumerate(
        ["simulate/blood_a", "qc/blood_a", "qc/blood_b", "split", "pack", "pretrain", "finetune"]
    ):
        path = folder / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds, mebibytes = 3.2 * 1.9**number, 300.5 * (number + 1)
        row = f"{seconds:.4f}\t0:00:09\t{mebibytes}\t-\tNA\t1\t0\t0\t99.0\t8.1\n"
        path.write_text(BENCHMARK + row)


def write_report(tables: StageTables, folder: Path, **settings: Any) -> Path:
    """Run the stage on made-up files; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_tables(tables, folder, settings)
    run(**paths)
    return paths["html"]
