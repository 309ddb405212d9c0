"""The verdict's words follow from the numbers, also where they are unpleasant."""

import pytest
from report_inputs import make_tables

from tabatlas.report.integration import compare_totals, judge_integration
from tabatlas.report.settings import ReportSettings
from tabatlas.report.summary import summarize_atlas
from tabatlas.report.verdict import (
    compare_calibration,
    compare_scores,
    judge_pretraining,
)


def method(value, low=None, high=None):
    return {"macro_f1": {"value": value, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("ours", "theirs", "state", "words"),
    [
        (method(0.95, 0.93, 0.97), method(0.90, 0.88, 0.92), "good", "Beats it: 0.950 against"),
        (method(0.95, 0.91, 0.97), method(0.94, 0.92, 0.96), "level", "Ahead of it by 0.010, not"),
        (method(0.93, 0.91, 0.97), method(0.94, 0.92, 0.96), "level", "Does not beat it"),
        (method(0.80, 0.78, 0.82), method(0.94, 0.92, 0.96), "poor", "Does not beat it"),
        (method(0.94, 0.92, 0.96), method(0.94, 0.92, 0.96), "level", "Does not beat it"),
        (method(0.95), method(0.94), "level", "not proven: 0.950 against 0.940; there is no"),
    ],
)
def test_a_baseline_is_beaten_only_where_intervals_lie_apart(ours, theirs, state, words):
    found = compare_scores(ours, theirs, "it")
    assert found[0] == state
    assert words in found[1]


def test_equal_calibration_is_no_gain():
    assert compare_calibration(0.02, 0.03)[0] == "good"
    assert compare_calibration(0.03, 0.03)[0] == "level"


@pytest.mark.parametrize(
    ("trained", "ratio", "state"),
    [(True, 0.8, "good"), (True, 1.0, "poor"), (False, 1.2, "unknown"), (True, None, "unknown")],
)
def test_pretraining_is_measured_against_the_mean_of_the_gene(trained, ratio, state):
    assert judge_pretraining({"trained": trained, "ratio": ratio})["state"] == state


@pytest.mark.parametrize(
    ("ours", "theirs", "parts", "beaten", "state", "words"),
    [
        (0.8, 0.7, [0.1, 0.1, 0.1], True, "good", "Beats it: integration total 0.800 against"),
        (0.8, 0.7, [0.1, 0.1, -0.1], False, "level", "Ahead of it, not proven"),
        (0.8, 0.7, [], False, "level", "too few cells to try parts of them"),
        (0.7, 0.8, [-0.1, -0.1, 0.1], False, "level", "Does not beat it"),
        (0.7, 0.8, [-0.1, -0.1, -0.1], False, "poor", "Does not beat it"),
        (0.7, 0.7, [0.0, 0.0, 0.0], False, "level", "Does not beat it"),
        (None, 0.7, [], False, "unknown", "Not comparable with it"),
    ],
)
def test_a_total_beats_another_only_where_every_part_agrees(
    ours, theirs, parts, beaten, state, words
):
    difference = None if ours is None else ours - theirs
    compared = {"difference": difference, "parts": parts, "beaten": beaten}
    pair = ({"total": total, "bio_conservation": 0.6} for total in (ours, theirs))
    found = compare_totals(*pair, compared, "it")
    assert found[0] == state
    assert words in found[1]


def test_a_total_that_is_ahead_by_its_batches_alone_is_no_victory():
    ours = {"total": 0.708, "bio_conservation": 0.585}
    theirs = {"total": 0.599, "bio_conservation": 0.660}
    compared = {"difference": 0.109, "parts": [0.1, 0.1, 0.1], "beaten": True}
    state, text = compare_totals(ours, theirs, compared, "PCA")
    assert state == "level"
    assert "by its batches alone" in text
    assert "biology 0.585 against 0.660" in text


def test_chance_and_harmony_on_the_embedding_are_claims_only_where_they_win():
    integration = summarize(make_tables())["integration"]
    texts = [claim["text"] for claim in judge_integration(integration)]
    assert [text.split(":")[0] for text in texts] == [
        "Beats PCA, which integrates nothing",
        "Does not beat Harmony on PCA",
    ]
    integration["comparisons"]["random"] |= {"difference": -0.1, "beaten": False}
    assert "a random embedding" in [*judge_integration(integration)][-1]["text"]


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("donors", "in donors it has never seen"),
        ("datasets", "in datasets it has never seen"),
        ("batches", "in new batches of donors it has seen"),
        ("cells", "in new cells of donors it has seen"),
    ],
)
def test_headline_says_what_was_new_to_the_model(unit, words):
    tables = make_tables()
    tables.split["unit"] = unit
    assert words in summarize(tables)["verdict"]["headline"]


def test_weakest_type_was_tested():
    tables = make_tables()
    tables.finetune_scores["per_class"][0] |= {"n_test": 0, "tabnet": {"f1": 0.0}}
    (claim,) = [
        claim
        for claim in summarize(tables)["verdict"]["claims"]
        if claim["text"].startswith("Weakest type")
    ]
    assert "B cell" not in claim["text"]


def test_losses_beyond_the_limits_become_cautions():
    tables = make_tables()
    assert summarize(tables)["cautions"] == []
    tables.fetch[0] |= {"n_mapped": 400, "unmapped_labels": ["mystery"]}
    tables.qc[1]["samples"][0] |= {"n_cells": 500, "n_kept": 10}
    tables.normalize[2]["pct_lost_counts"] = 40.0
    tables.split["unit"] = "cells"
    tables.finetune_scores.update(n_unseen_test_cells=12, bootstrap_unit="cells")
    tables.integrate_scores.update(
        n_single_batch_types=2, undefined={"kbet": "no type with ten cells"}
    )
    assert [caution["section"] for caution in summarize(tables)["cautions"]] == [
        "data",
        "data",
        "data",
        "qc",
        "split",
        "test",
        "test",
        "integration",
        "integration",
    ]
    relaxed = summarize(tables, warn_kept_below=0.01, warn_mapped_below=0.1)["cautions"]
    assert [caution["section"] for caution in relaxed].count("qc") == 0


def summarize(tables, **settings):
    return summarize_atlas(tables, ReportSettings.parse(settings, "report"))
