"""Perturbation on the page: winners only where a set can name one, and every absence said."""

from dataclasses import replace

import pytest
from page_parts import PageParts
from perturbation_inputs import MADE, make_perturbation
from report_inputs import HOSTILE, make_tables, write_report

from tabatlas.perturb.predictions import CEILING
from tabatlas.perturb.predictions import METHODS as PREDICTED
from tabatlas.perturb.sets import DOUBLES, DOUBLES_UNSEEN, SINGLES
from tabatlas.report.perturbation import (
    METHODS,
    SETS,
    examine_perturbation,
    judge_perturbation,
    summarize_perturbation,
)
from tabatlas.scores.perturbation import DECIDING, METRICS


def make_page(scores, folder):
    tables = replace(make_tables(), perturb_scores=scores)
    return PageParts(write_report(tables, folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return make_page(make_perturbation(), tmp_path_factory.mktemp("page")).words


def judge(scores):
    return list(judge_perturbation(summarize_perturbation(scores)))


def test_the_page_knows_every_method_set_and_metric_of_the_stage():
    assert set(METHODS) == {*PREDICTED, CEILING} == set(MADE)
    assert set(SETS) == {SINGLES, DOUBLES, DOUBLES_UNSEEN}
    methods = make_perturbation()["screens"][0]["sets"][1]["methods"]
    assert set(methods["mean"]) == set(METRICS)
    assert DECIDING in METRICS


def test_every_method_has_a_row_or_a_reason(words):
    for name in METHODS.values():
        assert name[0].upper() + name[1:] in words
    assert "not run: ridge_pca was idle" in words


def test_who_is_not_beaten_is_named():
    state, text = judge(make_perturbation())[0]
    assert state == "level"
    assert "10 perturbations (doubles of known singles): centered additive comes 0.963" in text
    assert "of the way from the mean effect × targets to the ceiling" in text
    assert "Does not beat additive, linear model." in text


def test_a_head_that_does_not_beat_the_better_constant_is_poor():
    scores = make_perturbation()
    comparisons = scores["screens"][0]["sets"][1]["comparisons"]
    comparisons["scaled_mean"]["pearson_perturbed"] = {"value": 0.1, "low": -0.1, "high": 0.3}
    assert judge(scores)[0][0] == "poor"


def test_a_head_that_beats_all_is_good():
    scores = make_perturbation()
    for one in scores["screens"][0]["sets"][1]["comparisons"].values():
        one["pearson_perturbed"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    state, text = judge(scores)[0]
    assert state == "good"
    assert text.endswith("Beats every other method.")


def test_a_set_that_cannot_rank_names_no_best_method(words):
    claims = judge(make_perturbation())
    assert claims[1:] == [
        (
            "unknown",
            "Unable to rank methods of predicting perturbations: "
            "screen_d, K-562 (single perturbations).",
        )
    ]
    assert "Unable to rank methods: the ceiling is 0.10 above the constant effect" in words
    assert words.count("Best:") == 1


def test_the_head_is_called_what_it_is(words):
    assert "On single perturbations the head is called kernel ridge" in words
    assert "gain 0.001 (−0.020 to 0.020) over random ones" in words


def test_the_audit_stands_on_the_page(words):
    assert "of 4,470 cells that training and validation read, 0 are among the 812 of 14" in words


def test_targets_without_embedding_are_cautioned_of_and_listed(tmp_path):
    scores = make_perturbation()
    scores["screens"][0]["targets_without_embedding"] = ["KLF1", "SET"]
    (text,) = examine_perturbation(summarize_perturbation(scores))
    assert "2 of 20 targets without a gene embedding count as average: KLF1, SET." in text
    assert "2 targets without embedding" in make_page(scores, tmp_path).words


def test_a_unit_that_was_skipped_says_why(tmp_path):
    scores = make_perturbation()
    scores["screens"][0] |= {"skipped": "3 control cells", "sets": []}
    assert "Not scored: 3 control cells." in make_page(scores, tmp_path).words


def test_an_atlas_without_a_screen_has_a_short_section(tmp_path):
    words = make_page(make_perturbation() | {"screens": []}, tmp_path).words
    assert "No screen: no perturbation was predicted." in words
    assert "Leak audit" not in words


def test_hostile_names_make_no_element(tmp_path):
    scores = make_perturbation()
    scores["screens"][0] |= {
        "screen": HOSTILE[0],
        "cell_line": HOSTILE[1],
        "strategy": HOSTILE[2],
        "targets_without_embedding": list(HOSTILE),
    }
    page = make_page(scores, tmp_path)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags


def test_a_metric_of_noise_has_no_rescaled_score(tmp_path):
    scores = make_perturbation()
    for method in scores["screens"][0]["sets"][1]["methods"].values():
        method["mse"] = method["mse"] | {"rescaled": None}
        method["discrimination_l2"] = None
    page = make_page(scores, tmp_path)
    assert "the ceiling is no better than the constant" in page.find("title")
