"""Perturbation on the page: its table, the claims that follow from it, and what to doubt."""

from collections.abc import Iterator, Mapping
from typing import Any

from tabatlas.report.wording import format_count, format_noun, format_score
from tabatlas.scores.perturbation import DECIDING

Table = Mapping[str, Any]

# In the order of the page, the plainest first; the head, which is ours, and the ceiling last.
METHODS = {
    "no_change": "no change",
    "mean": "mean effect",
    "scaled_mean": "mean effect × targets",
    "additive": "additive",
    "centered_additive": "centered additive",
    "linear": "linear model",
    "zero_shot": "zero-shot network",
    "ridge_random": "ridge with random genes",
    "ridge_pca": "ridge with PCA genes",
    "ridge_pretrained": "ridge with pretrained genes",
    "ceiling": "split-half ceiling",
}
SETS = {
    "singles": "single perturbations",
    "doubles": "doubles of known singles",
    "doubles_unseen": "doubles with an unknown single",
}


def summarize_perturbation(scores: Table) -> dict[str, Any]:
    """Scores of all screens, each set's methods in the order of the page."""
    screens = [
        {**screen, "sets": [order_methods(one) for one in screen["sets"]]}
        for screen in scores["screens"]
    ]
    return {"audit": scores["audit"], "screens": screens, "deciding": DECIDING}


def order_methods(one: Table) -> dict[str, Any]:
    """A test set whose methods are rows, each with its name; those that were not run have none."""
    rows = [
        {"id": name, "name": word[0].upper() + word[1:], "scores": one["methods"].get(name)}
        | {"reason": one["not_run"].get(name)}
        for name, word in METHODS.items()
    ]
    return {**one, "title": SETS[one["name"]], "methods": rows}


def list_sets(perturbation: Table) -> list[tuple[str, Table]]:
    """Every test set with the name of its unit."""
    return [
        (f"{screen['screen']}, {screen['cell_line']}", one)
        for screen in perturbation["screens"]
        for one in screen["sets"]
    ]


def judge_perturbation(perturbation: Table) -> Iterator[tuple[str, str]]:
    """State and sentence of each test set that can rank, and one on those that cannot."""
    sets = list_sets(perturbation)
    for unit, one in sets:
        if one["can_rank"]:
            yield judge_set(unit, one)
    unable = [f"{unit} ({one['title']})" for unit, one in sets if not one["can_rank"]]
    if unable:
        yield (
            "unknown",
            f"Unable to rank methods of predicting perturbations: {'; '.join(unable)}.",
        )


def judge_set(unit: str, one: Table) -> tuple[str, str]:
    """How far the head comes from the constant to the ceiling, and whom it does not beat."""
    gains = {rival: values[DECIDING] for rival, values in one["comparisons"].items()}
    level = [word for rival, word in METHODS.items() if rival in gains and not won(gains[rival])]
    own = next(row for row in one["methods"] if row["id"] == one["own"])
    share = format_score(own["scores"][DECIDING]["rescaled"]["value"])
    beaten = "Beats every other method" if not level else f"Does not beat {', '.join(level)}"
    state = "good" if not level else "level" if won(gains[one["baseline"]]) else "poor"
    return state, (
        f"{unit}, {format_noun(one['n_perturbations'], 'perturbation')} ({one['title']}): "
        f"{one['head']} comes {share} of the way from the {METHODS[one['baseline']]} to the "
        f"ceiling. {beaten}."
    )


def won(gain: Table) -> bool:
    """Whether a paired difference is proven; rounding alone proves nothing."""
    return gain["low"] > 1e-9


def examine_perturbation(perturbation: Table) -> Iterator[str]:
    """What of the screens could not be predicted or scored."""
    for screen in perturbation["screens"]:
        unit = f"{screen['screen']}, {screen['cell_line']}"
        if screen["skipped"]:
            yield f"{unit}: not scored: {screen['skipped']}."
            continue
        without = screen["targets_without_embedding"]
        if without:
            shown = ", ".join(without[:5]) + (", …" if len(without) > 5 else ".")
            yield (
                f"{unit}: {format_count(len(without))} of "
                f"{format_noun(screen['n_targets'], 'target')} without a gene embedding count as "
                f"average: {shown}"
            )
