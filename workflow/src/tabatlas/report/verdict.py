"""The verdict in words: what was built and how good it is beside the baselines."""

from collections.abc import Iterator, Mapping
from typing import Any

from tabatlas.report.wording import format_change, format_noun, format_score

GOOD, LEVEL, POOR, UNKNOWN = "good", "level", "poor", "unknown"
UNSEEN = {
    "donors": "in donors that it has never seen",
    "batches": "in batches that it has never seen",
    "cells": "in held-out cells of donors that it has seen",
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
    return {"headline": headline, "claims": [*claims, judge_pretraining(summary["pretraining"])]}


def judge_classifier(model: Table, test: Table) -> Iterator[dict[str, str]]:
    """Claims about the classifier on the test cells."""
    peer, majority = (test["methods"].get(name) for name in ("logistic_regression", "majority"))
    if peer is not None:
        yield claim("test", *compare_scores(model, peer, "logistic regression"))
    if majority is not None:
        yield claim("test", *compare_scores(model, majority, "always naming the commonest type"))
    if peer is not None and None not in (model["ece"], peer["ece"]):
        yield claim("test", *compare_calibration(model["ece"], peer["ece"]))
    rows = [row for row in test["per_class"] if row["tabnet"]["f1"] is not None]
    if len(rows) > 1:
        worst = min(rows, key=lambda row: row["tabnet"]["f1"])
        n_cells = format_noun(worst["n_test"], "test cell")
        score = format_score(worst["tabnet"]["f1"])
        text = f"Weakest type: {worst['label']}, F1 {score} ({n_cells})."
        yield claim("test", UNKNOWN, text)


def compare_scores(ours: Table, theirs: Table, name: str) -> tuple[str, str]:
    """State and sentence: macro-F1 beside a baseline's, and whether the intervals overlap."""
    mine, other = ours["macro_f1"], theirs["macro_f1"]
    change = mine["value"] - other["value"]
    values = f"{format_score(mine['value'])} against {format_score(other['value'])}"
    apart = are_apart(mine, other)
    if apart and change > 0:
        return GOOD, f"Beats {name}: {values}; the intervals do not overlap."
    if change > 0:
        reason = "no intervals" if apart is None else "the intervals overlap"
        return LEVEL, f"Ahead of {name} by {format_change(change)} ({values}), not proven: {reason}."
    if apart:
        return POOR, f"Does not beat {name}: {values}, and the intervals do not overlap."
    return LEVEL, f"Does not beat {name}: {values}."


def are_apart(one: Table, other: Table) -> bool | None:
    """Whether two intervals do not overlap; None where one is not known."""
    if None in (one["low"], one["high"], other["low"], other["high"]):
        return None
    return one["low"] > other["high"] or other["low"] > one["high"]


def compare_calibration(ours: float, theirs: float) -> tuple[str, str]:
    """State and sentence: expected calibration error beside logistic regression's."""
    values = f"expected calibration error {format_score(ours)} against {format_score(theirs)}"
    if ours < theirs:
        return GOOD, f"Its confidence is truer than logistic regression's: {values}."
    return LEVEL, f"Its confidence is no truer than logistic regression's: {values}."


def judge_pretraining(pretraining: Table) -> dict[str, str]:
    """Whether the encoder knows more about a gene than its mean."""
    ratio = pretraining["ratio"]
    if not pretraining["trained"]:
        return claim("pretraining", UNKNOWN, "Not pretrained: the encoder starts from chance.")
    if ratio is None:
        return claim("pretraining", UNKNOWN, "Pretrained, but not validated.")
    if ratio < 1:
        text = f"Predicts hidden genes with {format_score(ratio)} of the loss of the gene's mean."
        return claim("pretraining", GOOD, text)
    text = f"Predicts hidden genes no better than the gene's mean: {format_score(ratio)} of its loss."
    return claim("pretraining", POOR, text)


def claim(section: str, state: str, text: str) -> dict[str, str]:
    """One sentence of the verdict and the section that proves it."""
    return {"section": section, "state": state, "text": text}
