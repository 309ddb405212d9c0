"""Thresholds come from validation cells; what is degraded is degraded as it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tabatlas.finetune.degrade import (
    draw_droplets,
    drop_genes,
    permute_genes,
    pool_cells,
    thin_counts,
)
from tabatlas.finetune.predictions import Judged
from tabatlas.finetune.rejection import score_rejection
from tabatlas.finetune.thresholds import find_typicality
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.stream.packed import PackedSource


@pytest.fixture
def source(atlas):
    return PackedSource(atlas.pack, "train")


@pytest.fixture
def cells(source):
    return source.read(np.arange(40))


def test_the_threshold_is_half_of_the_low_quantile_and_never_negative():
    typicality_n = np.linspace(0, 1, 101)
    assert find_typicality(typicality_n, 0.4) == pytest.approx(0.2)
    assert find_typicality(typicality_n - 2, 0.4) == 0


def test_thinned_cells_keep_their_share_of_molecules(cells):
    share_n = torch.full((len(cells),), 0.25)
    thin = thin_counts(cells, share_n, torch.Generator().manual_seed(0))
    ratio = count_molecules(thin).sum() / count_molecules(cells).sum()
    assert float(ratio) == pytest.approx(0.25, rel=0.02)
    assert (thin.count <= cells.count).all()
    assert (thin.total_n >= count_molecules(thin)).all()


def test_dropped_genes_have_no_molecule_and_the_others_all(source, cells):
    kept_g = torch.arange(source.n_genes) % 2 == 0
    found = drop_genes(cells, kept_g).to_csr(source.n_genes).toarray()
    expected = cells.to_csr(source.n_genes).toarray() * kept_g.numpy()
    np.testing.assert_array_equal(found, expected)


def test_permuted_counts_stay_on_measured_genes(source, cells):
    permuted = permute_genes(cells, source.presence, np.random.default_rng(0))
    before, after = (one.to_csr(source.n_genes).toarray() for one in (cells, permuted))
    np.testing.assert_array_equal(np.sort(before, axis=1), np.sort(after, axis=1))
    assert not after[~source.presence[cells.dataset].numpy()].any()
    assert (before != after).any(axis=1).all()


def test_droplets_have_the_asked_depth_and_the_composition_of_their_dataset(source, cells):
    depth_n = np.arange(len(cells)) * 100
    pool_ng = pool_cells(cells, source.n_genes)
    droplets = draw_droplets(cells, depth_n, pool_ng, np.random.default_rng(0))
    np.testing.assert_array_equal(count_molecules(droplets), depth_n)
    drawn = droplets.to_csr(source.n_genes).toarray()
    assert not drawn[pool_ng == 0].any()
    deepest = drawn[-1] / depth_n[-1]
    np.testing.assert_allclose(deepest, pool_ng[-1] / pool_ng[-1].sum(), atol=0.03)


def test_scores_count_each_status_and_tell_noise_from_cells():
    rule = Typicality(torch.ones(2, 3) / 3, 0.1, min_typicality=0.5, min_counts=10)
    logits_nc = np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [3.0, 0.0]])
    counts_n = np.array([50, 50, 50, 5])
    test = Judged(np.array([0, 0, 0, 0]), logits_nc, np.array([1.0, 1.0, 0.4, 1.0]), counts_n)
    noise = replace(test, typicality_n=np.full(4, -1.0), label_n=np.full(4, -1))
    known, empty = score_rejection({"test": test, "ambient": noise}, rule, 1.0)
    assert [known[name] for name in ("assigned", "unknown", "low_quality")] == [0.5, 0.25, 0.25]
    assert (known["accuracy"], known["accuracy_assigned"], known["auroc"]) == (0.75, 0.5, None)
    assert (empty["assigned"], empty["accuracy"], empty["auroc"]) == (0, None, 1)


def test_a_set_without_an_assigned_cell_has_no_accuracy():
    rule = Typicality(torch.ones(2, 3) / 3, 0.1, min_typicality=0.5, min_counts=10)
    poor = Judged(np.array([0]), np.array([[1.0, 0.0]]), np.array([1.0]), np.array([3]))
    (row,) = score_rejection({"test": poor}, rule, 1.0)
    assert row["accuracy_assigned"] is None
    assert row["accuracy"] == 1
