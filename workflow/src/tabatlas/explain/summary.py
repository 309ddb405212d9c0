"""From means to the tables and numbers of the stage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.explain.attribution import AGGREGATIONS, TypeMeans
from tabatlas.explain.deletion import Deletion
from tabatlas.explain.settings import ExplainSettings
from tabatlas.explain.stability import find_own, find_stable, list_tops, score_stability
from tabatlas.finetune.evaluate import LOGISTIC
from tabatlas.scores.classification import name_bootstrap_unit
from tabatlas.scores.importance import bootstrap_mean

# A type's genes are its own where they repeat twice as well as other types' genes come up in it: on
# pbmc3k platelets have 0.136 against 0.113, which says nothing about platelets.
OVER_OTHER_TYPES = 2.0
MAX_COLUMNS = 60  # genes of a heatmap, as long as each type has one
Class = Mapping[str, Any]


def find_usable(means: TypeMeans) -> np.ndarray:
    """Genes that a type's explained cells measured and express (c, g): only they are compared."""
    return (means.measured_cg > 0) & (means.expression_cg > 0)


def find_own_genes(means: TypeMeans, n_top: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Per type its own stable genes, most important first; and the stable genes of most types."""
    usable_cg, importance_kcg = find_usable(means), means.sum_steps("weighted")
    tops = [list_tops(one_cg, usable_cg, n_top) for one_cg in importance_kcg]
    stable = [find_stable(of_type) for of_type in zip(*tops, strict=True)]
    return find_own(stable, importance_kcg, usable_cg)


def is_finding(scores: Mapping[str, Any] | None, min_stability: float) -> bool:
    """Whether a type's top genes repeat: more than asked, than chance, than other types' genes."""
    if scores is None or scores["jaccard_other_types"] is None:
        return False
    jaccard = scores["jaccard"]
    return bool(
        jaccard >= min_stability
        and jaccard > scores["jaccard_bound"]
        and jaccard >= OVER_OTHER_TYPES * scores["jaccard_other_types"]
    )


def summarize_types(
    means: TypeMeans,
    classes: Sequence[Class],
    symbols: np.ndarray,
    own: Sequence[np.ndarray],
    per_type: Sequence[dict[str, Any] | None],
    chosen: ExplainSettings,
) -> list[dict[str, Any]]:
    """One row per type: cells, stability, own genes, markers. Unstable types name no gene."""
    usable_cg = find_usable(means)
    stability = {
        name: score_stability(means.sum_steps(name), usable_cg, chosen.n_top)
        for name in AGGREGATIONS
    }
    rows = []
    for number, one in enumerate(classes):
        scores = {name: found[number] for name, found in stability.items()}
        is_stable = len(own[number]) > 0 and is_finding(scores["weighted"], chosen.min_stability)
        rows.append(
            {
                "label": one["label"],
                "ontology_term_id": one["ontology_term_id"],
                "n_sampled": int(means.n_sampled_c[number]),
                "n_cells": int(means.n_cells_c[number]),
                "stability": scores if scores["weighted"] else None,
                "stable": is_stable,
                "stable_genes": symbols[own[number]].tolist() if is_stable else [],
                "markers": per_type[number],
            }
        )
    return rows


def average_stability(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Means over the types that were explained."""
    explained = [row["stability"] for row in rows if row["stability"]]
    if not explained:
        return None
    averaged = {}
    for name in AGGREGATIONS:
        table = pd.DataFrame([one[name] for one in explained]).astype(float)
        means = table.drop(columns="n_stable").mean()
        averaged[name] = {key: None if np.isnan(v) else float(v) for key, v in means.items()}
    return {"n_types": len(explained), "n_stable": sum(row["stable"] for row in rows)} | averaged


def summarize_deletion(
    found: Deletion, donor_n: np.ndarray, sizes: Sequence[int], chosen: ExplainSettings
) -> dict[str, Any]:
    """The curve with its control, and paired differences with intervals."""
    rng = np.random.default_rng([chosen.seed, 4])

    def compare(one_n: np.ndarray, other_n: np.ndarray) -> dict[str, float]:
        return asdict(bootstrap_mean(one_n - other_n, donor_n, rng))

    def describe(tabnet_n: np.ndarray, control_n: np.ndarray, peer_n: np.ndarray) -> dict[str, Any]:
        return {
            "tabnet": float(tabnet_n.mean()),
            "control": float(control_n.mean()),
            LOGISTIC: float(peer_n.mean()),
            "tabnet_over_control": compare(tabnet_n, control_n),
            "tabnet_over_logistic_regression": compare(tabnet_n, peer_n),
        }

    curves = (found.tabnet_ni, found.control_ni, found.logistic_ni)
    return {
        "bootstrap_unit": name_bootstrap_unit(donor_n),
        "n_draws": chosen.deletion_draws,
        "curve": [
            {
                "n_hidden": size,
                "mean_hidden": float(found.hidden_ni[:, place].mean()),
                **describe(*(curve[:, place] for curve in curves)),
            }
            for place, size in enumerate(sizes)
        ],
        "mean": describe(*(curve.mean(axis=1) for curve in curves)),
        "mean_expression": {
            "tabnet": float(found.tabnet_expression_n.mean()),
            "control": float(found.control_expression_n.mean()),
        },
    }


def summarize_selection(means: TypeMeans) -> dict[str, Any]:
    """Genes that a cell's dataset measured, that its masks select, and of these the expressed."""
    *steps, whole = zip(means.selected_s.tolist(), means.expressed_s.tolist(), strict=True)
    keys = ("n_selected", "n_expressed")
    return {
        "n_measured": means.n_measured,
        **dict(zip(keys, whole, strict=True)),
        "steps": [dict(zip(keys, step, strict=True)) for step in steps],
    }


def draw_heatmaps(
    means: TypeMeans,
    rows: Sequence[Mapping[str, Any]],
    symbols: np.ndarray,
    own: Sequence[np.ndarray],
    chosen: ExplainSettings,
) -> dict[str, Any]:
    """Mean importance by type and by step, of the own genes of stable types alone."""
    drawn = [number for number, row in enumerate(rows) if row["stable"]]
    n_each = min(chosen.heatmap_genes, max(MAX_COLUMNS // max(len(drawn), 1), 1))
    union = dict.fromkeys(gene for one in drawn for gene in own[one][:n_each])
    genes = np.array(list(union), dtype=np.int64)
    steps_csg = means.importance["weighted"][0]
    columns = symbols[genes].tolist()
    by_type = steps_csg.sum(axis=1)[np.ix_(drawn, genes)]
    by_step = steps_csg[drawn][:, :, genes].mean(axis=0) if drawn else np.zeros((0, 0))
    return {
        "types": {
            "rows": [rows[number]["label"] for number in drawn],
            "columns": columns,
            "values": by_type.tolist(),
        },
        "steps": {
            "rows": [f"step {step + 1}" for step in range(len(by_step))],
            "columns": columns,
            "values": by_step.tolist(),
        },
    }


def tabulate_types(
    means: TypeMeans,
    rows: Sequence[Mapping[str, Any]],
    genes: pd.DataFrame,
    coefficients_cg: np.ndarray,
    own: Sequence[np.ndarray],
) -> pd.DataFrame:
    """A row per type and gene that its explained cells measured."""
    parts = []
    for number, row in enumerate(rows):
        kept = np.flatnonzero(means.measured_cg[number])
        parts.append(
            name_genes(genes, kept, row["label"]).assign(
                expression=means.expression_cg[number, kept],
                **{name: means.sum_steps(name)[0, number, kept] for name in AGGREGATIONS},
                logistic_regression=coefficients_cg[number, kept],
                stable=np.isin(kept, own[number]) & row["stable"],
            )
        )
    return pd.concat(parts, ignore_index=True)


def tabulate_steps(
    means: TypeMeans, rows: Sequence[Mapping[str, Any]], genes: pd.DataFrame
) -> pd.DataFrame:
    """A row per type, step and gene: what the step adds to the type's importance."""
    parts = []
    for number, row in enumerate(rows):
        kept = np.flatnonzero(means.measured_cg[number])
        for step in range(means.importance["weighted"].shape[2]):
            part = name_genes(genes, kept, row["label"])
            part.insert(1, "step", np.int8(step + 1))
            values = {name: means.importance[name][0, number, step, kept] for name in AGGREGATIONS}
            parts.append(part.assign(**values))
    return pd.concat(parts, ignore_index=True)


def name_genes(genes: pd.DataFrame, kept: np.ndarray, label: str) -> pd.DataFrame:
    """Type, number, id and symbol of genes."""
    named = genes.iloc[kept][[names.FEATURE_ID, names.FEATURE_NAME]].reset_index(drop=True)
    named.insert(0, names.CELL_TYPE, label)
    named.insert(1, "gene", kept.astype(np.int32))
    return named
