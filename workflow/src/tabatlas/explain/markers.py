"""Known markers, and how well a ranking of genes finds them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import ConfigError, InputError
from tabatlas.explain.settings import ExplainSettings
from tabatlas.genes import map_names
from tabatlas.scores.classification import LEAST_DONORS
from tabatlas.scores.importance import (
    average_precision,
    bin_expression,
    bootstrap_mean,
    draw_matched,
    share_reaching,
)

GENE = "gene"


@dataclass(frozen=True)
class Markers:
    """Which genes mark which class (c, g), and the rows that could not be used."""

    is_marker_cg: np.ndarray
    n_rows: int
    n_other_types: int
    n_unknown_genes: int

    def describe(self) -> dict[str, int]:
        """Counts of rows."""
        return {
            "n_rows": self.n_rows,
            "n_other_types": self.n_other_types,
            "n_unknown_genes": self.n_unknown_genes,
        }


def match_markers(
    table: pd.DataFrame,
    classes: Sequence[Mapping[str, Any]],
    genes: Sequence[str],
    organism: str,
    place: str,
) -> Markers:
    """Markers of a table with columns `cell_type` and `gene`, for these classes and genes.

    A row counts for every class that has its id or its label. Raises `ConfigError` without the
    columns, `InputError` where no row fits.
    """
    for column in (names.CELL_TYPE, GENE):
        if column not in table:
            raise ConfigError(
                f"{place}: no column `{column}`; it has {', '.join(map(str, table.columns))}. "
                f"Begin the table with a line `{names.CELL_TYPE}<tab>{GENE}`."
            )
    feature_id = map_names(table[GENE], organism).feature_id
    known = pd.Index(genes).get_indexer(feature_id)
    is_marker_cg = np.zeros((len(classes), len(genes)), dtype=bool)
    fits_any = np.zeros(len(table), dtype=bool)
    for number, one in enumerate(classes):
        called = {one["ontology_term_id"], one["label"]} - {names.UNKNOWN}
        fits = table[names.CELL_TYPE].isin(called).to_numpy()
        is_marker_cg[number, known[fits & (known >= 0)]] = True
        fits_any |= fits
    if not is_marker_cg.any():
        raise InputError(
            f"{place}: none of its {len(table)} rows names a gene of the model and one of its "
            f"types (first type: {classes[0]['label']}, {classes[0]['ontology_term_id']}). Check "
            "`explain.markers`."
        )
    return Markers(is_marker_cg, len(table), int((~fits_any).sum()), int((feature_id == "").sum()))


def score_markers(
    rankings: Mapping[str, np.ndarray],
    is_marker_cg: np.ndarray,
    usable_cg: np.ndarray,
    expression_cg: np.ndarray,
    chosen: ExplainSettings,
) -> tuple[list[dict[str, Any] | None], dict[str, Any] | None]:
    """AUPRC of every ranking (name → values (c, g)) per type, and over the types that have one.

    Beside it stands the AUPRC of random genes of equal mean expression in the type's cells, put
    in the markers' place: what a ranking gets that only prefers strongly expressed genes.
    """
    per_type: list[dict[str, Any] | None] = []
    draws: list[dict[str, np.ndarray]] = []
    for number, usable_g in enumerate(usable_cg):
        marker_g = is_marker_cg[number, usable_g]
        if marker_g.sum() < chosen.min_markers or marker_g.all():
            per_type.append(None)
            continue
        rng = np.random.default_rng([chosen.seed, 1, number])
        bins = bin_expression(expression_cg[number, usable_g])
        sets = np.concatenate(
            [marker_g[None], draw_matched(marker_g, bins, chosen.matched_draws, rng)]
        )
        found = {
            name: average_precision(value_cg[number, usable_g], sets)
            for name, value_cg in rankings.items()
        }
        draws.append(found)
        per_type.append(
            {
                "n_markers": int(marker_g.sum()),
                "n_genes": len(marker_g),
                "prevalence": float(marker_g.mean()),
                "methods": {name: compare_draws(values) for name, values in found.items()},
            }
        )
    return per_type, average_types(draws, chosen) if draws else None


def compare_draws(value_d: np.ndarray) -> dict[str, float]:
    """A score, the first of `value_d`, beside the same score of random draws, the rest."""
    return {
        "auprc": float(value_d[0]),
        "matched": float(value_d[1:].mean()),
        "matched_share": share_reaching(value_d[0], value_d[1:]),
    }


def average_types(
    draws: Sequence[Mapping[str, np.ndarray]], chosen: ExplainSettings
) -> dict[str, Any]:
    """Means over types; differences to the first ranking paired over types, where five have one."""
    stacked = {name: np.stack([found[name] for found in draws]) for name in draws[0]}
    first, *others = stacked
    rng = np.random.default_rng([chosen.seed, 2])
    return {
        "n_types": len(draws),
        "methods": {
            name: compare_draws(value_td.mean(axis=0)) for name, value_td in stacked.items()
        },
        "differences": {
            other: compare_types(stacked[first][:, 0] - stacked[other][:, 0], rng)
            for other in others
        },
    }


def compare_types(change_t: np.ndarray, rng: np.random.Generator) -> dict[str, float | None]:
    """Mean of a difference paired over types; fewer than five give no interval."""
    if len(change_t) < LEAST_DONORS:
        return {"value": float(change_t.mean()), "low": None, "high": None}
    return asdict(bootstrap_mean(change_t, np.arange(len(change_t)), rng))
