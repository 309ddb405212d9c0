"""The test of an integration: all methods on the same cells, honest words, the same bytes."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas.errors import ModelError
from tabatlas.integrate.evaluate import (
    BASELINES,
    TABNET,
    compare_totals,
    divide_cells,
    evaluate_embedding,
)
from tabatlas.provenance import canonical_json

N_CELLS, N_GENES = 360, 80


@pytest.fixture(scope="module")
def atlas():
    """Cells of three types in two batches that differ, and their counts."""
    rng = np.random.default_rng(0)
    label_n, batch_n = np.arange(N_CELLS) % 3, rng.integers(0, 2, N_CELLS)
    rate_ng = np.ones((N_CELLS, N_GENES))
    for one in range(3):
        rate_ng[label_n == one, 10 * one : 10 * one + 10] = 4
    rate_ng[batch_n == 1, 30:60] *= 6
    counts = sp.csr_matrix(rng.poisson(rate_ng).astype(np.int32))
    cells = pd.DataFrame(
        {
            "soma_joinid": 7 * np.arange(N_CELLS),
            "batch": np.array(["a1", "b1"])[batch_n],
            "cell_type": np.array(["B cell", "T cell", "monocyte"])[label_n],
        }
    )
    ideal_nd = (5 * np.eye(8)[label_n] + rng.normal(size=(N_CELLS, 8))).astype(np.float32)
    total_n = np.asarray(counts.sum(axis=1)).ravel()
    return cells, counts, total_n, ideal_nd


@pytest.fixture(scope="module")
def evaluated(atlas):
    cells, counts, total_n, ideal_nd = atlas
    return evaluate_embedding(ideal_nd, cells, counts, total_n, np.ones(N_GENES, bool), 0)


def test_every_method_is_scored_on_the_same_cells(evaluated):
    scores, _ = evaluated
    assert list(scores["methods"]) == [TABNET, *BASELINES]
    assert (scores["n_cells"], scores["n_batches"], scores["n_types"]) == (N_CELLS, 2, 3)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_an_embedding_without_batches_beats_what_knows_them(evaluated):
    scores, _ = evaluated
    assert scores["beats_pca"]
    assert scores["comparisons"]["random"]["beaten"]
    assert len(scores["comparisons"]["pca"]["parts"]) == 3


def test_two_evaluations_are_the_same_to_the_byte(atlas, evaluated):
    cells, counts, total_n, ideal_nd = atlas
    scores, layout = evaluate_embedding(ideal_nd, cells, counts, total_n, np.ones(N_GENES, bool), 0)
    assert canonical_json(scores) == canonical_json(evaluated[0])
    pd.testing.assert_frame_equal(layout, evaluated[1])


def test_the_layout_parts_the_types_after_integration(atlas, evaluated):
    cells, layout = atlas[0], evaluated[1]
    assert layout["soma_joinid"].tolist() == cells["soma_joinid"].tolist()
    assert set(layout) == {
        "soma_joinid",
        "batch",
        "cell_type",
        *(f"{side}_{axis}" for side in ("before", "after") for axis in "xy"),
    }
    place_n2 = layout[["after_x", "after_y"]].to_numpy()
    centers = layout.groupby("cell_type")[["after_x", "after_y"]].mean()
    nearest = np.linalg.norm(place_n2[:, None] - centers.to_numpy(), axis=2).argmin(axis=1)
    assert (centers.index.to_numpy()[nearest] == layout["cell_type"]).mean() > 0.95


@pytest.mark.parametrize(
    ("column", "reason"), [("batch", "needs two batches"), ("cell_type", "needs two types")]
)
def test_where_nothing_can_be_scored_the_reason_is_given(atlas, column, reason):
    cells, counts, total_n, ideal_nd = atlas
    alike = cells.assign(**{column: "one"})
    scores, layout = evaluate_embedding(ideal_nd, alike, counts, total_n, np.ones(N_GENES, bool), 0)
    assert scores["methods"] is None
    assert scores["reason"] == reason
    assert len(layout) == 0


def test_datasets_without_a_common_gene_are_not_scored(atlas):
    cells, counts, total_n, ideal_nd = atlas
    none = np.zeros(N_GENES, bool)
    scores, _ = evaluate_embedding(ideal_nd, cells, counts, total_n, none, 0)
    assert scores["reason"] == "the datasets have fewer than three genes in common"


def test_no_labelled_cell_is_a_reason_and_no_crash(atlas):
    cells, counts, total_n, ideal_nd = atlas
    scores, layout = evaluate_embedding(
        ideal_nd[:0], cells.iloc[:0], counts[:0], total_n[:0], np.ones(N_GENES, bool), 0
    )
    assert scores["methods"] is None
    assert scores["n_cells"] == len(layout) == 0


def test_an_embedding_that_is_not_finite_is_refused(atlas):
    cells, counts, total_n, ideal_nd = atlas
    broken = np.where(np.arange(8) == 3, np.nan, ideal_nd)
    with pytest.raises(ModelError, match="not finite"):
        evaluate_embedding(broken, cells, counts, total_n, np.ones(N_GENES, bool), 0)


def test_parts_are_disjoint_and_have_the_same_types():
    label_n = np.repeat(["a", "b", "c"], [31, 60, 2])
    parts = divide_cells(label_n, np.random.default_rng(0))
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts)) == 90
    for rows in parts:
        assert np.unique(label_n[rows], return_counts=True)[1].tolist() == [10, 20]


@pytest.mark.parametrize(
    ("ours", "parts", "beaten"),
    [
        (0.8, [0.7, 0.7, 0.7], True),
        (0.8, [0.7, 0.7, 0.5], False),  # one part contradicts
        (0.6, [0.7, 0.7, 0.7], False),
        (0.8, [], False),  # too few cells to say
        (None, [0.7, 0.7, 0.7], False),
        (0.8, [0.7, None, 0.7], False),
    ],
)
def test_a_baseline_is_beaten_where_every_part_agrees(ours, parts, beaten):
    methods = {name: {"total": 0.6, "parts": [0.6] * len(parts)} for name in BASELINES}
    found = compare_totals({TABNET: {"total": ours, "parts": parts}, **methods})
    assert found["beats_pca"] is beaten
    assert {one["beaten"] for one in found["comparisons"].values()} == {beaten}
