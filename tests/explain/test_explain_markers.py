import numpy as np
import pandas as pd
import pytest

from tabatlas.errors import ConfigError, InputError
from tabatlas.explain.markers import match_markers, score_markers
from tabatlas.explain.settings import ExplainSettings

CLASSES = [
    {"label": "B cell", "ontology_term_id": "CL:0000236"},
    {"label": "my type", "ontology_term_id": "unknown"},
]
GENES = ["ENSG00000156738", "ENSG00000105369", "ENSG00000010610"]  # MS4A1, CD79A, CD4


def match(*rows):
    table = pd.DataFrame(rows, columns=["cell_type", "gene"])
    return match_markers(table, CLASSES, GENES, "Homo sapiens", "markers.tsv")


def test_types_are_named_by_id_or_label_and_genes_by_id_or_symbol():
    found = match(
        ("CL:0000236", "MS4A1"),
        ("B cell", "ENSG00000105369.12"),
        ("my type", "CD4"),
        ("CL:0000624", "CD4"),
        ("B cell", "NOSUCHGENE"),
        ("unknown", "CD4"),
    )
    assert found.is_marker_cg.tolist() == [[True, True, False], [False, False, True]]
    assert found.describe() == {"n_rows": 6, "n_other_types": 2, "n_unknown_genes": 1}


def test_a_table_of_other_columns_is_refused_with_those_it_has():
    with pytest.raises(ConfigError, match=r"markers.tsv: no column `cell_type`; it has a, b"):
        match_markers(
            pd.DataFrame(columns=["a", "b"]), CLASSES, GENES, "Homo sapiens", "markers.tsv"
        )


def test_a_table_of_other_types_is_refused_with_a_type_of_the_model():
    with pytest.raises(InputError, match=r"none of its 1 rows .* B cell, CL:0000236"):
        match(("neuron", "CD4"))


@pytest.fixture
def world():
    """Six types, 600 genes, 30 markers each, which are strongly expressed."""
    rng = np.random.default_rng(0)
    expression_cg = rng.random((6, 600))
    is_marker_cg = rng.random((6, 600)) < 0.1 * expression_cg
    return rng, expression_cg, is_marker_cg


def score(rankings, is_marker_cg, expression_cg, **knobs):
    usable_cg = np.ones_like(is_marker_cg)
    return score_markers(rankings, is_marker_cg, usable_cg, expression_cg, ExplainSettings(**knobs))


def test_a_ranking_that_knows_the_markers_beats_matched_genes_and_expression_does_not(world):
    rng, expression_cg, is_marker_cg = world
    rankings = {"knows": is_marker_cg + rng.random((6, 600)), "expression": expression_cg}
    per_type, overall = score(rankings, is_marker_cg, expression_cg)
    knows, plain = (overall["methods"][name] for name in rankings)
    assert knows["auprc"] > 0.5 > 3 * knows["matched"]
    assert knows["matched_share"] < 0.01
    assert plain["auprc"] > 1.2 * np.mean([row["prevalence"] for row in per_type])
    assert plain["matched_share"] > 0.05
    assert overall["differences"]["expression"]["low"] > 0


def test_types_with_few_markers_are_not_scored(world):
    _, expression_cg, is_marker_cg = world
    is_marker_cg[2] = False
    is_marker_cg[2, :4] = True
    per_type, overall = score({"a": expression_cg}, is_marker_cg, expression_cg, min_markers=5)
    assert per_type[2] is None
    assert overall["n_types"] == 5
    assert score({"a": expression_cg}, is_marker_cg[2:3], expression_cg[2:3]) == ([None], None)


def test_a_few_types_give_no_interval(world):
    _, expression_cg, is_marker_cg = world
    rankings = {"a": expression_cg, "b": -expression_cg}
    _, overall = score(rankings, is_marker_cg[:3], expression_cg[:3])
    assert overall["differences"]["b"]["low"] is None
