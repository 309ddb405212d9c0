"""A cell is typical of its type where its counts are likelier under it than under all types."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tabatlas import names
from tabatlas.finetune.profiles import fit_profiles
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet.entries import GeneSets, from_dense

N_TYPES, N_GENES = 4, 400


def make_profiles(rng):
    """Compositions as of real types: most genes alike, a tenth of them twenty times as much."""
    common_g = rng.lognormal(0, 1.5, N_GENES)
    raised_cg = np.where(rng.random((N_TYPES, N_GENES)) < 0.1, 20, 1)
    profile_cg = common_g * raised_cg
    return profile_cg / profile_cg.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def profile_cg():
    return make_profiles(np.random.default_rng(0))


@pytest.fixture
def rule(profile_cg):
    profile = torch.from_numpy(profile_cg.astype(np.float32))
    return Typicality(profile, ambient_share=0.1, min_typicality=0.4, min_counts=50)


def measure(rule, counts_ng, class_n, measured_ng=None):
    """Typicality of cells (n, g) whose greatest logit is that of `class_n`."""
    measured_ng = np.ones_like(counts_ng, dtype=bool) if measured_ng is None else measured_ng
    seen_ng = counts_ng * measured_ng
    total_n = np.maximum(seen_ng.sum(axis=1, keepdims=True), 1)
    x_ng = torch.from_numpy(np.log1p(seen_ng / total_n * 1e4).astype(np.float32))
    logits_nc = torch.nn.functional.one_hot(torch.as_tensor(class_n), N_TYPES).float()
    return measure_dense(rule, x_ng, torch.from_numpy(~measured_ng), logits_nc).numpy()


def measure_dense(rule, x_ng, missing_ng, logits_nc):
    sets = GeneSets(torch.arange(len(x_ng)), missing_ng)
    return rule.measure(from_dense(x_ng), sets, logits_nc)


def draw_cells(profile_cg, depth, n_cells=400, seed=1):
    """Counts (n, g) of cells of all types at one depth, and the type of each."""
    rng = np.random.default_rng(seed)
    class_n = np.arange(n_cells) % len(profile_cg)
    return rng.multinomial(depth, profile_cg[class_n]), class_n


def test_a_typical_cell_has_one_and_the_ambient_less_than_zero(profile_cg, rule):
    cells, class_n = draw_cells(profile_cg, 2000)
    assert np.median(measure(rule, cells, class_n)) == pytest.approx(1, abs=0.03)
    ambient_g = profile_cg.mean(axis=0)
    ambient = np.random.default_rng(2).multinomial(2000, ambient_g, len(class_n))
    assert (measure(rule, ambient, class_n) < 0).all()


@pytest.mark.parametrize("depth", [3000, 800, 200])
def test_the_depth_of_a_cell_does_not_move_it(profile_cg, rule, depth):
    typicality_n = measure(rule, *draw_cells(profile_cg, depth))
    assert np.median(typicality_n) == pytest.approx(1, abs=0.05)
    assert (typicality_n > 0).mean() > 0.98


def test_genes_that_were_not_measured_do_not_move_it_and_their_values_are_not_seen(
    profile_cg, rule
):
    cells, class_n = draw_cells(profile_cg, 2000)
    measured_ng = np.tile(np.random.default_rng(3).random(N_GENES) < 0.5, (len(cells), 1))
    half = measure(rule, cells, class_n, measured_ng)
    assert np.median(half) == pytest.approx(1, abs=0.05)
    # The same zeros taken for measured genes are another cell.
    as_zeros = measure(rule, cells * measured_ng, class_n)
    assert abs(np.median(as_zeros) - 1) > 3 * abs(np.median(half) - 1)
    x_ng = torch.rand(3, N_GENES)
    missing_ng, logits_nc = torch.arange(N_GENES).expand(3, -1) % 2 == 0, torch.rand(3, N_TYPES)
    others = torch.where(missing_ng, 9.0, x_ng)
    found, again = (measure_dense(rule, x, missing_ng, logits_nc) for x in (x_ng, others))
    torch.testing.assert_close(found, again)


def test_noise_is_not_typical(profile_cg, rule):
    cells, class_n = draw_cells(profile_cg, 2000)
    permuted = np.random.default_rng(4).permuted(cells, axis=1)
    uniform = np.random.default_rng(5).integers(0, 100, cells.shape)
    for noise in (permuted, uniform):
        assert (measure(rule, noise, class_n) < rule.min_typicality).mean() > 0.95


def test_a_near_relative_of_the_named_type_is_typical_and_its_opposite_is_not(profile_cg):
    """Types 0 and 1 share half of their genes; the others none with them."""
    near = profile_cg.copy()
    near[1] = (near[0] + near[1]) / 2
    profile = torch.from_numpy(near.astype(np.float32))
    rule = Typicality(profile, ambient_share=0.1, min_typicality=0.4, min_counts=50)
    cells = np.random.default_rng(6).multinomial(2000, near[0], 200)
    as_relative, as_stranger = (measure(rule, cells, [other] * 200) for other in (1, 2))
    assert (as_relative > rule.min_typicality).all()
    assert (as_stranger < -1).all()


def test_a_cell_without_molecules_or_without_measured_genes_is_not_typical(rule):
    nothing = np.zeros((2, N_GENES))
    np.testing.assert_array_equal(measure(rule, nothing, [0, 1]), 0)
    unmeasured = np.zeros((2, N_GENES), dtype=bool)
    np.testing.assert_array_equal(measure(rule, nothing + 1, [0, 1], unmeasured), 0)


def test_status_asks_for_molecules_first_and_for_typicality_then(rule):
    status_n = rule.judge(np.array([1.0, 0.39, 0.4, -1.0]), np.array([49, 50, 50, 49]))
    low, unknown, assigned = names.LOW_QUALITY, names.UNKNOWN, names.ASSIGNED
    assert status_n.tolist() == [low, unknown, assigned, low]


def test_confidence_is_the_probability_of_a_typical_cell_and_falls_to_zero(rule):
    confidence_n = rule.trust(np.full(5, 0.8), np.array([2.0, 0.4, 0.2, 0.0, -3.0]))
    np.testing.assert_allclose(confidence_n, [0.8, 0.8, 0.4, 0, 0])
    at_zero = replace(rule, min_typicality=0.0)
    np.testing.assert_allclose(at_zero.trust(np.full(2, 0.8), np.array([0.1, -0.1])), [0.8, 0])


def test_tensors_and_thresholds_bring_the_rule_back(rule):
    again = Typicality.read(rule.tensors | {"encoder/x": torch.ones(1)}, rule.thresholds)
    assert again.thresholds == rule.thresholds
    assert torch.equal(again.profile_cg, rule.profile_cg)


def test_molecules_are_counted_over_the_genes_that_were_loaded():
    nothing = torch.zeros(3, 0)
    cells = Minibatch(
        indptr=torch.tensor([0, 2, 2, 3]),
        gene=torch.tensor([0, 5, 1], dtype=torch.int32),
        count=torch.tensor([3.0, 4.0, 2.0]),
        total_n=torch.tensor([100, 0, 2]),
        dataset=torch.zeros(3, dtype=torch.int64),
        label=torch.zeros(3, dtype=torch.int64),
        level=nothing.long(),
        number=nothing,
        joinid=torch.arange(3),
    )
    assert count_molecules(cells).tolist() == [7, 0, 2]


def test_profiles_are_found_over_datasets_that_measured_different_genes(profile_cg):
    """Dataset 1 measured a third of the genes: its shares are of that third, not of the whole."""
    cells, class_n = draw_cells(profile_cg, 20_000, n_cells=2000)
    dataset_n = np.arange(len(cells)) // 4 % 2
    presence_mg = np.ones((2, N_GENES), dtype=bool)
    presence_mg[1] = np.random.default_rng(6).random(N_GENES) < 1 / 3
    seen = sp.csr_matrix(cells * presence_mg[dataset_n])
    found = fit_profiles(seen, class_n, dataset_n, presence_mg, N_TYPES)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    large = profile_cg > 1e-3
    np.testing.assert_allclose(found[large], profile_cg[large], rtol=0.1)
    # The mean of the shares as they are is far from it.
    naive = np.asarray(seen[class_n == 0].multiply(1 / seen[class_n == 0].sum(axis=1)).mean(axis=0))
    assert np.abs(naive.ravel() / profile_cg[0] - 1)[presence_mg[1]].mean() > 0.3


def test_a_gene_that_no_dataset_of_a_type_measured_does_not_speak_for_or_against_it(profile_cg):
    cells, class_n = draw_cells(profile_cg, 5000)
    presence_mg = np.ones((2, N_GENES), dtype=bool)
    presence_mg[1, :40] = False
    dataset_n = (class_n == 0).astype(int)
    seen = sp.csr_matrix(cells * presence_mg[dataset_n])
    found = fit_profiles(seen, class_n, dataset_n, presence_mg, N_TYPES)
    ratio = (found[0] / found.mean(axis=0))[:40]
    large = found.mean(axis=0)[:40] > 1e-3
    np.testing.assert_allclose(ratio[large], np.median(ratio), rtol=0.05)
    true = (profile_cg[0] / profile_cg.mean(axis=0))[:40]
    assert np.abs(true[large] / np.median(true) - 1).max() > 0.5


def test_deep_cells_count_no_more_than_others(profile_cg):
    shallow, class_n = draw_cells(profile_cg, 500)
    deep = draw_cells(np.roll(profile_cg, 7, axis=1), 50_000)[0]
    cells = sp.csr_matrix(np.concatenate([shallow, deep]))
    label_n = np.concatenate([class_n, class_n])
    presence_mg = np.ones((1, N_GENES), dtype=bool)
    found = fit_profiles(cells, label_n, np.zeros_like(label_n), presence_mg, N_TYPES)
    both = (profile_cg + np.roll(profile_cg, 7, axis=1)) / 2
    large = both > 3e-3
    np.testing.assert_allclose(found[large], both[large], rtol=0.25)
