"""Integration on the page: its table, the claims that follow from it, and what to doubt."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabatlas.report.states import GOOD, LEVEL, POOR, UNKNOWN, claim
from tabatlas.report.wording import format_noun, format_score

Table = Mapping[str, Any]

BASELINES = {
    "pca": "PCA, which integrates nothing",
    "harmony_pca": "Harmony on PCA",
    "harmony_tabnet": "Harmony on its own embedding",
    "random": "a random embedding",
}


def summarize_integration(scores: Table, layout: Table) -> Table:
    """Scores of the integration, best total first, empty where there are none; places of cells."""
    sizes = ("n_cells", "n_batches", "n_types", "n_single_batch_types", "n_shared_genes")
    methods = scores.get("methods") or {}
    ranked = sorted(methods.items(), key=lambda item: (-(item[1]["total"] or 0), item[0]))
    return {
        **{key: scores.get(key) for key in sizes},
        "left_out": scores.get("left_out") or {},
        "reason": scores.get("reason"),
        "undefined": scores.get("undefined") or {},
        "methods": dict(ranked),
        "comparisons": {
            name: {**one, "range": span_parts(one["parts"])}
            for name, one in (scores.get("comparisons") or {}).items()
        },
        "layout": layout,
    }


def span_parts(values: Sequence[float | None]) -> Table:
    """Least and greatest of some values, None where one is not known or there is none."""
    known = bool(values) and None not in values
    return {"low": min(values) if known else None, "high": max(values) if known else None}


def judge_integration(integration: Table) -> Iterator[dict[str, str]]:
    """Claims about the embedding beside its baselines; chance and Harmony on it where they win."""
    methods = integration["methods"]
    if not methods:
        text = f"Integrated, but not scored: {integration['reason']}."
        yield claim("integration", UNKNOWN, text)
        return
    for baseline, name in BASELINES.items():
        compared = integration["comparisons"][baseline]
        expected = baseline in ("random", "harmony_tabnet")
        if not (expected and compared["difference"] is not None and compared["difference"] > 0):
            pair = (methods["tabnet"], methods[baseline])
            yield claim("integration", *compare_totals(*pair, compared, name))


def compare_totals(ours: Table, theirs: Table, compared: Table, name: str) -> tuple[str, str]:
    """State and sentence: total beside a baseline's, and whether parts of the cells agree.

    A total that is ahead through its batches alone, with less biology, is no victory.
    """
    totals, kept = ([one[key] for one in (ours, theirs)] for key in ("total", "bio_conservation"))
    values = "integration total {} against {}".format(*map(format_score, totals))
    if compared["difference"] is None:
        return UNKNOWN, f"Not comparable with {name}: {values}."
    if compared["difference"] > 0 and None not in kept and kept[0] < kept[1]:
        biology = "biology {} against {}".format(*map(format_score, kept))
        return LEVEL, f"Ahead of {name} by its batches alone: {values}, but {biology}."
    if compared["beaten"]:
        return GOOD, f"Beats {name}: {values}; higher in every part of the cells."
    parts = [one for one in compared["parts"] if one is not None]
    agree = "parts of the cells disagree" if parts else "too few cells to try parts of them"
    if compared["difference"] > 0:
        return LEVEL, f"Ahead of {name}, not proven: {values}; {agree}."
    if parts and max(parts) < 0:
        return POOR, f"Does not beat {name}: {values}; lower in every part of the cells."
    return LEVEL, f"Does not beat {name}: {values}; {agree}."


def examine_integration(integration: Mapping[str, Any]) -> Iterator[str]:
    """Limits of the integration's scores."""
    if not integration["methods"]:
        return
    if integration["n_single_batch_types"]:
        n_types = format_noun(integration["n_single_batch_types"], "cell type")
        yield f"{n_types} in one batch only: for them batch and biology cannot be told apart."
    for metric, reason in integration["undefined"].items():
        yield f"{metric.replace('_', ' ')} left out of all totals: {reason}."
