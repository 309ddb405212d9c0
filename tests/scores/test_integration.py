"""Scores of an integration: what they reward, what they leave undefined, that they repeat."""

import logging

import numpy as np
import pytest
from scib_metrics import kbet_per_label
from scib_metrics.nearest_neighbors import NeighborsResults

from tabatlas.scores.integration import (
    BATCH,
    BATCH_METRICS,
    BIO,
    BIO_METRICS,
    METRICS,
    SILHOUETTES,
    TOTAL,
    TOTAL_WITHOUT_SILHOUETTES,
    find_undefined,
    score_embeddings,
)
from tabatlas.scores.kbet import score_kbet
from tabatlas.scores.neighbors import find_neighbors

N_CELLS, N_BATCHES, N_TYPES = 240, 2, 3


@pytest.fixture(scope="module")
def cells():
    """Batches, labels, and embeddings that mix the batches, keep them apart, or know nothing."""
    rng = np.random.default_rng(0)
    batch_n, label_n = rng.integers(0, N_BATCHES, N_CELLS), np.arange(N_CELLS) % N_TYPES
    noise_nd = rng.normal(size=(N_CELLS, 10))
    biology_nd = 6 * np.eye(10)[label_n]
    embeddings = {
        "mixed": biology_nd + noise_nd,
        "apart": biology_nd + 2 * np.eye(10)[5 + batch_n] + noise_nd,
        "random": rng.normal(size=(N_CELLS, 10)),
    }
    return {k: v.astype(np.float32) for k, v in embeddings.items()}, batch_n, label_n


@pytest.fixture(scope="module")
def scores(cells):
    embeddings, batch_n, label_n = cells
    return score_embeddings(embeddings, embeddings["apart"], batch_n, label_n)


def test_a_mixed_embedding_scores_higher_than_one_with_batches_apart(scores):
    for mean in (BATCH, TOTAL, TOTAL_WITHOUT_SILHOUETTES):
        assert scores["mixed"][mean] > scores["apart"][mean] + 0.1
    for metric in BATCH_METRICS:
        assert scores["mixed"][metric] >= scores["apart"][metric]


def test_a_random_embedding_wins_batch_correction_and_loses_the_total(scores):
    """Which is why no batch correction stands without its biology."""
    assert scores["random"][BATCH] > scores["apart"][BATCH] + 0.3
    assert scores["random"][TOTAL] < min(scores["mixed"][TOTAL], scores["apart"][TOTAL])


def test_the_total_is_three_fifths_biology_and_two_fifths_batches(scores):
    for one in scores.values():
        bio = np.mean([one[metric] for metric in BIO_METRICS])
        batch = np.mean([one[metric] for metric in BATCH_METRICS])
        assert one[BIO] == pytest.approx(bio, abs=1e-5)
        assert one[TOTAL] == pytest.approx(0.6 * bio + 0.4 * batch, abs=1e-5)
        rest = [
            np.mean([one[metric] for metric in group if metric not in SILHOUETTES])
            for group in (BIO_METRICS, BATCH_METRICS)
        ]
        wanted = 0.6 * rest[0] + 0.4 * rest[1]
        assert one[TOTAL_WITHOUT_SILHOUETTES] == pytest.approx(wanted, abs=1e-5)


def test_neither_the_order_of_cells_nor_of_methods_matters(cells, scores):
    embeddings, batch_n, label_n = cells
    mixed_n = np.random.default_rng(1).permutation(N_CELLS)
    moved = {name: embeddings[name][mixed_n] for name in reversed(embeddings)}
    again = score_embeddings(moved, moved["apart"], batch_n[mixed_n], label_n[mixed_n])
    assert again == scores


def test_names_of_batches_and_types_do_not_matter(cells, scores):
    embeddings, batch_n, label_n = cells
    batches, labels = np.array(["a", "b"])[batch_n], np.array(["A", "B", "C"])[label_n]
    again = score_embeddings(embeddings, embeddings["apart"], batches, labels)
    assert again == scores


def test_nothing_is_said_to_the_log(cells, caplog):
    caplog.set_level(logging.DEBUG)
    embeddings, batch_n, label_n = cells
    score_embeddings({"mixed": embeddings["mixed"]}, embeddings["apart"], batch_n, label_n)
    assert caplog.records == []
    logging.getLogger("after").info("heard")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("batch_n", "label_n", "undefined", "reason"),
    [
        (np.zeros(120), np.arange(120) % 2, set(BATCH_METRICS), "needs two batches"),
        (np.arange(120) % 2, np.zeros(120), set(BIO_METRICS), "needs two types"),
        (np.arange(90) % 2, np.arange(90) // 50, set(METRICS), "needs more than 90 cells"),
        # Every type in a batch of its own: nothing tells batches from biology.
        (np.arange(120) % 2, np.arange(120) % 2, {"kbet", "bras"}, "no type with"),
    ],
)
def test_what_cells_do_not_allow_is_named_with_its_reason(batch_n, label_n, undefined, reason):
    found = find_undefined(batch_n, label_n)
    assert found.keys() == undefined
    assert all(text.startswith(reason) for text in found.values())


def test_an_undefined_metric_is_none_and_enters_no_mean(cells):
    embeddings, _, label_n = cells
    one = score_embeddings({"mixed": embeddings["mixed"]}, embeddings["apart"], label_n, label_n)
    assert one["mixed"]["kbet"] is one["mixed"]["bras"] is None
    rest = [one["mixed"][metric] for metric in BATCH_METRICS if metric not in ("kbet", "bras")]
    assert one["mixed"][BATCH] == pytest.approx(np.mean(rest), abs=1e-5)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_an_embedding_without_a_value_has_no_total(cells):
    """A collapsed embedding has no variance to explain; the other methods keep their totals."""
    embeddings, batch_n, label_n = cells
    flat = {"flat": np.zeros((N_CELLS, 4), np.float32), "mixed": embeddings["mixed"]}
    found = score_embeddings(flat, embeddings["apart"], batch_n, label_n)
    assert found["flat"]["pcr_comparison"] is None
    assert found["flat"][BATCH] is found["flat"][TOTAL] is None
    assert found["mixed"][TOTAL] is not None


def test_neighbors_are_the_nearest_and_a_cell_is_its_own_first():
    x_nd = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    neighbor_nk, distance_nk = find_neighbors(x_nd, 7)
    all_nn = np.linalg.norm(x_nd[:, None] - x_nd, axis=2)
    np.testing.assert_array_equal(neighbor_nk, np.argsort(all_nn, axis=1)[:, :7])
    np.testing.assert_allclose(distance_nk, np.sort(all_nn, axis=1)[:, :7], rtol=1e-5)
    assert (distance_nk[:, 0] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mixed", "apart", "random"])
def test_kbet_is_that_of_scib_metrics(cells, method):
    """Slow: its search for neighbors is compiled for half a minute."""
    embeddings, batch_n, label_n = cells
    neighbors = NeighborsResults(*find_neighbors(embeddings[method], 50))
    found = score_kbet(neighbors.knn_graph_connectivities, batch_n, label_n)
    assert found == pytest.approx(kbet_per_label(neighbors, batch_n, label_n), abs=0.02)
