"""The verdict in words: what was built and how good it is beside the baselines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabatlas.report.explanation import judge_explanation
from tabatlas.report.integration import judge_integration
from tabatlas.report.perturbation import judge_perturbation
from tabatlas.report.states import GOOD, LEVEL, POOR, UNKNOWN, claim
from tabatlas.report.wording import format_noun, format_score, shorten_label

UNSEEN = {
    "donors": "in donors it has never seen",
    "datasets": "in datasets it has never seen",
    "batches": "in new batches of donors it has seen",
    "cells": "in new cells of donors it has seen",
}
Table = Mapping[str, Any]


def judge_model(summary: Table) -> dict[str, Any]:
    """The headline and the claims below it, each {"state", "section", "text"}."""
    test = summary["test"]
    model = test["methods"].get("tabnet")
    if model is None:
        headline = "Built, but not tested: no labelled test cell says how good the model is."
        claims = []
    else:
        score = format_score(model["macro_f1"]["value"])
        unseen = UNSEEN[summary["split"]["unit"]]
        headline = f"Names cell types {unseen} with a macro-F1 of {score}."
        claims = list(judge_classifier(model, test))
    claims += [
        judge_pretraining(summary["pretraining"]),
        *judge_integration(summary["integration"]),
        *(claim("perturbation", *one) for one in judge_perturbation(summary["perturbation"])),
        *judge_explanation(summary["explanation"]),
        *find_weakest(test["per_class"]),
    ]
    return {"headline": headline, "claims": claims}


def judge_classifier(model: Table, test: Table) -> Iterator[dict[str, str]]:
    """Claims about the classifier on the test cells."""
    peer, majority = (test["methods"].get(name) for name in ("logistic_regression", "majority"))
    if peer is not None:
        yield claim("test", *compare_scores(model, peer, "logistic regression"))
    if majority is not None:
        yield claim("test", *compare_scores(model, majority, "always naming the commonest type"))
    if peer is not None and None not in (model["ece"], peer["ece"]):
        yield claim("test", *compare_calibration(model["ece"], peer["ece"]))


def compare_scores(ours: Table, theirs: Table, name: str) -> tuple[str, str]:
    """State and sentence: macro-F1 beside a baseline's, and whether the intervals overlap."""
    mine, other = ours["macro_f1"], theirs["macro_f1"]
    change = mine["value"] - other["value"]
    values = f"{format_score(mine['value'])} against {format_score(other['value'])}"
    apart = are_apart(mine, other)
    proof = {None: "there is no interval", True: "the intervals do not overlap"}
    reason = proof.get(apart, "the intervals overlap")
    if change <= 0:
        return POOR if apart else LEVEL, f"Does not beat {name}: {values}; {reason}."
    if apart:
        return GOOD, f"Beats {name}: {values}; {reason}."
    return LEVEL, f"Ahead of {name} by {change:.3f}, not proven: {values}; {reason}."


def are_apart(one: Table, other: Table) -> bool | None:
    """Whether two intervals do not overlap; None where one is not known."""
    if None in (one["low"], one["high"], other["low"], other["high"]):
        return None
    return one["low"] > other["high"] or other["low"] > one["high"]


def compare_calibration(ours: float, theirs: float) -> tuple[str, str]:
    """State and sentence: expected calibration error beside logistic regression's."""
    values = f"expected calibration error {format_score(ours)} against {format_score(theirs)}"
    if ours < theirs:
        return GOOD, f"Calibrated, its confidence is truer than logistic regression's: {values}."
    return LEVEL, f"Calibrated, its confidence is no truer than logistic regression's: {values}."


def judge_pretraining(pretraining: Table) -> dict[str, str]:
    """Whether the encoder knows more about a gene than its mean."""
    ratio = pretraining["ratio"]
    if not pretraining["trained"]:
        return claim("pretraining", UNKNOWN, "Not pretrained: the encoder starts from chance.")
    if ratio is None:
        return claim("pretraining", UNKNOWN, "Pretrained, but not validated.")
    share = f"{format_score(ratio)} of the loss of naming the gene's mean"
    if ratio < 1:
        return claim("pretraining", GOOD, f"Predicts hidden genes with {share}.")
    return claim("pretraining", POOR, f"Does not predict hidden genes: {share}.")


def find_weakest(per_class: Sequence[Table]) -> Iterator[dict[str, str]]:
    """The type with the lowest F1, where several were tested."""
    rows = [row for row in per_class if row["n_test"]]
    if len(rows) > 1:
        worst = min(rows, key=lambda row: row["tabnet"]["f1"])
        label = shorten_label(worst["label"], 80)
        n_cells = format_noun(worst["n_test"], "test cell")
        score = format_score(worst["tabnet"]["f1"])
        yield claim("test", UNKNOWN, f"Weakest type: {label}, F1 {score} ({n_cells}).")
