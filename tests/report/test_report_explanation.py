"""The section on masks: the verdict follows from the numbers, and nothing unstable is drawn."""

import copy
from dataclasses import replace

import pytest
from page_parts import PageParts
from report_inputs import make_explanation, make_tables, write_report

from tabatlas.report.explanation import judge_explanation
from tabatlas.report.heatmap import square_counts, square_importances
from tabatlas.report.settings import ReportSettings
from tabatlas.report.summary import summarize_atlas
from tabatlas.report.wording import format_score

TYPES = {"B cell": "CL:0000236", "natural killer cell": "CL:0000623"}


@pytest.fixture
def explanation():
    return copy.deepcopy(make_explanation(TYPES))


def judge(explanation):
    return {claim["text"]: claim["state"] for claim in judge_explanation(explanation)}


def find(claims, words):
    (state,) = [state for text, state in claims.items() if words in text]
    return state


@pytest.mark.parametrize(
    ("jaccard", "state", "words"),
    [(0.4, "good", "mostly the same genes"), (0.13, "poor", "Most genes that the masks put first")],
)
def test_masks_are_stable_where_seeds_share_half_of_their_genes(explanation, jaccard, state, words):
    explanation["stability"]["weighted"] = explanation["stability"]["weighted"] | {
        "jaccard": jaccard
    }
    assert find(judge(explanation), words) == state


@pytest.mark.parametrize(
    ("interval", "state", "words"),
    [
        ((-0.37, -0.13), "poor", "less than logistic regression does: AUPRC 0.093 against 0.346"),
        ((-0.37, 0.13), "level", "less than logistic regression does, not proven"),
        ((None, None), "level", "less than logistic regression does, not proven"),
        ((0.1, 0.3), "good", "more than logistic regression does"),
    ],
)
def test_agreement_with_markers_is_held_against_logistic_regression(
    explanation, interval, state, words
):
    differences = explanation["markers"]["overall"]["differences"]
    low, high = interval
    differences["logistic_regression"] = {"value": -0.25, "low": low, "high": high}
    assert find(judge(explanation), words) == state


def test_agreement_by_expression_alone_is_no_agreement(explanation):
    assert find(judge(explanation), "more markers than random genes of equal") == "good"
    explanation["markers"]["overall"]["methods"]["weighted"]["matched_share"] = 0.2
    assert find(judge(explanation), "no more markers than random genes of equal") == "poor"


def test_a_deletion_that_costs_nothing_more_is_called_so(explanation):
    assert find(judge(explanation), "costs more confidence than hiding random genes") == "good"
    assert find(judge(explanation), "costs TabNet even more") == "poor"
    explanation["deletion"]["mean"]["tabnet_over_control"]["low"] = -0.01
    assert find(judge(explanation), "costs no more confidence than hiding random") == "poor"


def test_what_was_not_measured_is_not_claimed(explanation):
    explanation |= {"stability": None, "markers": None}
    claims = judge(explanation)
    assert find(claims, "stability is not known") == "unknown"
    assert find(claims, "No known markers were given") == "unknown"


@pytest.mark.parametrize(
    ("n_selected", "state", "words"),
    [
        (150, "good", "Masks are sparse: 150 of 2,000"),
        (900, "level", "Masks select loosely: 900 of 2,000"),
        (
            1315,
            "poor",
            "hardly a selection: 1,315 of 2,000 measured genes per cell (65.8 %), 50.0 %",
        ),
    ],
)
def test_masks_that_select_most_genes_are_called_so(explanation, n_selected, state, words):
    explanation["selection"] |= {
        "n_measured": 2000.0,
        "n_selected": n_selected,
        "n_expressed": n_selected / 2,
    }
    assert find(judge(explanation), words) == state


def test_covariates_shared_genes_and_sets_that_ran_out_are_named(explanation, tmp_path):
    explanation |= {"covariates": {"donor": 0.123}, "shared_genes": ["CCL5", "NKG7"]}
    explanation["deletion"]["curve"][-1]["mean_hidden"] = 41.5
    words = write(explanation, tmp_path)
    assert "The covariate donor has 0.123 of the importance" in words
    assert "no finding about any: CCL5, NKG7." in words
    assert "Of 50 genes to hide 41.5 were hidden on average" in words


def write(explanation, folder):
    tables = replace(make_tables(TYPES), explain_scores=explanation)
    return PageParts(write_report(tables, folder).read_text()).words


def test_the_page_says_that_masks_are_not_markers(explanation, tmp_path):
    words = write(explanation, tmp_path)
    assert "Masks are not markers." in words
    assert "Agreement with known markers" in words
    assert "Importance by step" in words


def test_an_unstable_type_is_listed_and_not_drawn(explanation, tmp_path):
    explanation["types"][1] |= {"stable": False, "stable_genes": []}
    empty = {"rows": [], "columns": [], "values": []}
    explanation["heatmaps"] = {"types": empty, "steps": empty}
    words = write(explanation, tmp_path)
    assert "not stable" in words
    assert "No heatmap" in words
    assert "of 1 type of 2 change with the seed or are those of other types" in words
    assert "Importance by step" not in words


def test_a_type_without_a_rightly_named_cell_and_without_markers_has_a_row(explanation, tmp_path):
    missing = {"stability": None, "stable": False, "stable_genes": [], "markers": None}
    explanation["types"][0] |= missing | {"n_cells": 0}
    explanation["markers"] = None
    words = write(explanation, tmp_path)
    assert "no such cell" in words
    assert "change with the seed, so none" not in words
    assert "No known markers were given" in words


def test_masks_of_validation_cells_are_called_so(explanation):
    tables = replace(make_tables(TYPES), explain_scores=explanation | {"part": "validation"})
    summary = summarize_atlas(tables, ReportSettings())
    assert [one["text"] for one in summary["cautions"]] == [
        "Masks are those of validation cells: no labeled test cell is there."
    ]


def test_squares_of_counts_are_shares_and_those_of_importances_thousandths():
    (first, second, none), _ = square_counts([[1, 299, 0], [0, 0, 5]])
    assert (first.number, second.number, none) == ("<1", "100", None)
    assert second.text == "299 cells of 300 (99.7 %)"
    ((pale, dark, half),) = square_importances([[0.0001, 0.02, 0.01]])
    assert pale is None
    assert (dark.shade, dark.number, half.shade, half.number) == (1, "20", 0.5, "10")
    assert square_importances([]) == []


def test_no_zero_has_a_sign():
    assert format_score(-0.0001) == "0.000"
    assert format_score(-0.001) == "−0.001"
