import numpy as np
import pytest
import scipy.sparse as sp

from tabatlas.integrate import baselines
from tabatlas.integrate.baselines import correct_harmony, draw_random, embed_pca

N_CELLS, N_GENES = 200, 60


@pytest.fixture
def counts():
    """Two types with genes of their own in two batches; the second measured genes 0–49 only."""
    rng = np.random.default_rng(0)
    label_n, batch_n = np.arange(N_CELLS) % 2, np.arange(N_CELLS) // (N_CELLS // 2)
    rate_ng = np.ones((N_CELLS, N_GENES))
    rate_ng[label_n == 1, :10] = 8
    rate_ng[:, 50:] = 30
    rate_ng[batch_n == 1, 50:] = 0
    matrix = sp.csr_matrix(rng.poisson(rate_ng).astype(np.int32))
    return matrix, label_n, batch_n


def explain(values: np.ndarray, group_n: np.ndarray) -> float:
    """Share of the variance of one column that two groups explain."""
    means = np.array([values[group_n == one].mean() for one in (0, 1)])[group_n]
    return means.var() / values.var()


def test_a_gene_that_a_dataset_did_not_measure_takes_no_part(counts):
    matrix, label_n, batch_n = counts
    # Total counts without the genes that the second batch did not measure: no batch in them.
    total_n = np.asarray(matrix[:, :50].sum(axis=1)).ravel()
    shared_g = np.arange(N_GENES) < 50
    pca_nd = embed_pca(matrix, total_n, shared_g, batch_n, 0)
    assert explain(pca_nd[:, 0], label_n) > 0.7
    assert max(explain(column, batch_n) for column in pca_nd.T) < 0.1
    naive_nd = embed_pca(matrix, total_n, np.ones(N_GENES, bool), batch_n, 0)
    assert explain(naive_nd[:, 0], batch_n) > 0.9


def test_components_repeat_to_the_bit_and_have_no_mean(counts):
    matrix, _, batch_n = counts
    total_n = np.asarray(matrix.sum(axis=1)).ravel()
    one, again = (embed_pca(matrix, total_n, np.ones(60, bool), batch_n, 3) for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert one.shape == (N_CELLS, 30)
    np.testing.assert_allclose(one.mean(axis=0), 0, atol=1e-4)


def test_genes_are_chosen_within_batches(monkeypatch):
    """Genes that differ between types are taken; those that differ between batches only are not."""
    monkeypatch.setattr(baselines, "N_GENES", 20)
    rng = np.random.default_rng(0)
    label_n, batch_n = np.arange(N_CELLS) % 2, np.arange(N_CELLS) // (N_CELLS // 2)
    rate_ng = np.tile(rng.lognormal(0.5, 1, 400), (N_CELLS, 1))
    rate_ng[:, :20] *= 2 * label_n[:, None]
    rate_ng[:, 20:40] *= 2 * batch_n[:, None]
    x_ng = sp.csr_matrix(rng.poisson(rate_ng).astype(np.float32)).log1p()
    chosen = baselines.rank_variable_genes(x_ng, batch_n)
    assert len(chosen) == 20
    assert (chosen < 20).sum() > 10
    assert not ((chosen >= 20) & (chosen < 40)).any()


@pytest.mark.parametrize("n_columns", [5, N_CELLS])
def test_harmony_keeps_the_shape_and_takes_the_batches_away(counts, n_columns):
    """Also where there are as many columns as cells, and either axis could be the cells."""
    _, label_n, batch_n = counts
    x_nd = np.random.default_rng(1).normal(size=(N_CELLS, n_columns)).astype(np.float32)
    x_nd[:, 0] += 6 * label_n
    x_nd[:, 1] += 4 * batch_n
    corrected_nd = correct_harmony(x_nd, batch_n, 0)
    assert corrected_nd.shape == x_nd.shape
    assert explain(corrected_nd[:, 0], label_n) > 0.8
    assert explain(corrected_nd[:, 1], batch_n) < 0.3 < explain(x_nd[:, 1], batch_n)
    assert corrected_nd.tobytes() == correct_harmony(x_nd, batch_n, 0).tobytes()


def test_random_values_come_from_their_generator():
    one, again = (draw_random(5, 3, np.random.default_rng(0)) for _ in range(2))
    assert (one == again).all()
    assert one.shape == (5, 3)
