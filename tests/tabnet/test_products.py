"""Products with sparse rows against dense ones, of any ragged shape, and their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError
from torch.autograd import gradcheck

from tabatlas.tabnet.entries import (
    Entries,
    GeneSets,
    drop_members,
    from_dense,
    look_up,
    match,
    unite,
)
from tabatlas.tabnet.loops import LANES
from tabatlas.tabnet.normalization import GhostBatchNorm, cut_chunks, measure_variance
from tabatlas.tabnet.products import multiply, multiply_dense, multiply_scaled, sample
from tabatlas.tabnet.select import project

CLOSE = {"rtol": 0, "atol": 1e-12}


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


def draw_entries(generator, n_rows, n_genes, density) -> Entries:
    """Ragged rows, of which the second is empty."""
    kept_ng = torch.rand(n_rows, n_genes, generator=generator) < density
    kept_ng[1:2] = False
    return from_dense(draw(generator, n_rows, n_genes) * kept_ng)


@st.composite
def ragged(draw_one):
    """Rows, genes and width, with some entries, all of them or none."""
    generator = torch.Generator().manual_seed(draw_one(st.integers(0, 1000)))
    n_rows, n_genes = draw_one(st.integers(1, 9)), draw_one(st.integers(1, 70))
    density = draw_one(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    # Some have columns in registers, of which others are left over.
    width = draw_one(st.integers(1, 40) | st.integers(LANES - 1, LANES + 2))
    entries = draw_entries(generator, n_rows, n_genes, density)
    if draw_one(st.booleans()):
        entries = entries._replace(gene=entries.gene.short())
    return entries, draw(generator, n_genes, width), generator


@settings(deadline=None, max_examples=60, derandomize=True)
@given(made=ragged(), weight_in_rows=st.booleans())
def test_multiply_is_the_dense_product_and_so_are_its_gradients(made, weight_in_rows):
    entries, weight_gh, generator = made
    # The first linear map comes transposed.
    weight_gh = weight_gh if weight_in_rows else weight_gh.t().contiguous().t()
    entries.value.requires_grad_(), weight_gh.requires_grad_()
    product_nh, _ = multiply(entries, weight_gh)
    outer_nh = draw(generator, *product_nh.shape)
    found = torch.autograd.grad(product_nh, [entries.value, weight_gh], outer_nh)
    expected_nh = entries.to_dense(len(weight_gh)) @ weight_gh
    expected = torch.autograd.grad(expected_nh, [entries.value, weight_gh], outer_nh)
    assert torch.allclose(product_nh, expected_nh, **CLOSE)
    assert all(torch.allclose(*pair, **CLOSE) for pair in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(made=ragged())
def test_weights_handed_on_get_the_sum_of_the_gradients_of_all_uses(made):
    entries, weight_gh, generator = made
    n_genes, first = len(weight_gh), len(weight_gh) // 2
    gain_g = draw(generator, n_genes)
    x_nk = draw(generator, entries.n_rows, n_genes - first)
    leaves = [leaf.requires_grad_() for leaf in (gain_g, x_nk, weight_gh)]
    scaled_nh, weight = multiply_scaled(entries, gain_g, weight_gh)
    dense_nh, weight = multiply_dense(x_nk, weight, first)
    plain_nh, _ = multiply(entries, weight)
    found_nh = scaled_nh.sin() + dense_nh.cos() * plain_nh
    dense_ng = entries.to_dense(n_genes)
    expected_nh = (dense_ng * gain_g @ weight_gh).sin()
    expected_nh = expected_nh + (x_nk @ weight_gh[first:]).cos() * (dense_ng @ weight_gh)
    outer_nh = draw(generator, *found_nh.shape)
    found = torch.autograd.grad(found_nh, leaves, outer_nh)
    expected = torch.autograd.grad(expected_nh, leaves, outer_nh)
    close = {"rtol": 1e-11, "atol": 1e-11}
    assert torch.allclose(found_nh, expected_nh, **close)
    assert all(torch.allclose(*pair, **close) for pair in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(made=ragged())
def test_sample_takes_the_dense_product_at_entries_and_so_are_its_gradients(made):
    entries, b_gk, generator = made
    a_nk = draw(generator, entries.n_rows, b_gk.shape[1]).requires_grad_()
    b_gk.requires_grad_()
    sampled = sample(a_nk, b_gk, entries.indptr, entries.gene)
    found = torch.autograd.grad(sampled, [a_nk, b_gk], entries.value)
    whole = (a_nk @ b_gk.t())[entries.rows(), entries.gene.long()]
    expected = torch.autograd.grad(whole, [a_nk, b_gk], entries.value)
    assert torch.allclose(sampled, whole, **CLOSE)
    assert all(torch.allclose(*pair, **CLOSE) for pair in zip(found, expected, strict=True))


def test_finite_differences_give_the_gradients_of_the_products(generator):
    entries, weight_gh = draw_entries(generator, 4, 7, 0.5), draw(generator, 7, 3).requires_grad_()
    value, a_nk = entries.value.requires_grad_(), draw(generator, 4, 3).requires_grad_()
    assert gradcheck(lambda v, w: multiply(entries._replace(value=v), w)[0], (value, weight_gh))
    assert gradcheck(lambda a, b: sample(a, b, *entries[:2]), (a_nk, weight_gh))


@pytest.mark.parametrize("power", [1, 2])
def test_finite_differences_give_the_gradient_of_the_projection(power, generator):
    entries = draw_entries(generator, 4, 7, 0.6)
    value = entries.value.requires_grad_()
    assert gradcheck(lambda logits: project(entries.indptr, logits, power), value)


def test_finite_differences_give_the_gradients_of_folded_statistics(generator):
    x_nk, weight_fk = draw(generator, 9, 3).requires_grad_(), draw(generator, 5, 3).requires_grad_()
    assert gradcheck(measure_variance, (x_nk, weight_fk))
    norm = GhostBatchNorm(5, 4, momentum=0.25).double()
    parameters = tuple(norm.parameters())

    def fold(x_nk, weight_fk, *parameters):
        folded = norm.fold(x_nk, weight_fk)
        return folded.x_nk, folded.scale_cf, folded.shift_cf

    assert gradcheck(fold, (x_nk, weight_fk, *parameters))


@pytest.mark.parametrize("n_cells", [1, 5, 8, 9, 26])
@pytest.mark.parametrize("training", [True, False])
def test_folding_is_normalizing_the_product(n_cells, training, generator):
    norm = GhostBatchNorm(5, 8, momentum=0.25).double()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(tensor, generator=generator)
    other = GhostBatchNorm(5, 8, momentum=0.25).double()
    other.load_state_dict(norm.state_dict())
    norm.train(training), other.train(training)
    x_nk, weight_fk = draw(generator, n_cells, 3), draw(generator, 5, 3)
    folded = norm.fold(x_nk, weight_fk)
    assert sum(folded.sizes) == n_cells
    chunk_n = torch.arange(len(folded.sizes)).repeat_interleave(torch.tensor(folded.sizes))
    found_nf = folded.x_nk @ weight_fk.t() * folded.scale_cf[chunk_n] + folded.shift_cf[chunk_n]
    assert torch.allclose(found_nf, other(x_nk @ weight_fk.t()), **CLOSE)
    for found, expected in zip(norm.buffers(), other.buffers(), strict=True):
        assert torch.allclose(found, expected, **CLOSE)
    assert folded.sizes == (cut_chunks(n_cells, 8) if training and n_cells > 1 else [n_cells])


@pytest.mark.parametrize("width", [24, 2 * LANES + 1])
def test_the_number_of_threads_changes_no_bit(width, generator):
    # Some threads get fuller rows than others.
    entries = draw_entries(generator, 60, 1500, 0.02 * torch.rand(60, 1, generator=generator))
    weight_gh, a_nk = draw(generator, 1500, width), draw(generator, 60, width)

    def compute():
        value, weight = entries.value.clone().requires_grad_(), weight_gh.clone().requires_grad_()
        product_nh, _ = multiply(entries._replace(value=value), weight)
        product_nh.square().sum().backward()
        projected = project(entries.indptr, sample(a_nk, weight_gh, *entries[:2]), 2)
        return product_nh, value.grad, weight.grad, projected

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = compute()
    torch.set_num_threads(3)
    shared = compute()
    torch.set_num_threads(n_threads)
    assert all(map(torch.equal, alone, shared))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(made=ragged(), others=ragged())
def test_entries_are_found_among_others_and_united_with_them(made, others):
    entries, other = made[0], others[0]
    n_rows = min(entries.n_rows, other.n_rows)
    n_genes = max(len(made[1]), len(others[1]))
    first, second = (from_dense(one.to_dense(n_genes)[:n_rows]) for one in (entries, other))
    second.value.requires_grad_()
    found = look_up(second, first.indptr, first.gene)
    expected = second.to_dense(n_genes)[first.rows(), first.gene.long()]
    assert torch.equal(found, expected)
    slopes = [torch.autograd.grad(o, second.value, first.value)[0] for o in (found, expected)]
    assert torch.equal(*slopes)
    place = match(second, first.indptr, first.gene)
    assert torch.equal(place < len(second.gene), expected != 0)
    both_ng = (first.to_dense(n_genes) != 0) | (second.to_dense(n_genes) != 0)
    indptr, gene = unite([first, second])
    assert torch.equal(Entries(indptr, gene, torch.ones_like(gene)).to_dense(n_genes) > 0, both_ng)
    for row in gene.split(indptr.diff().tolist()):
        assert (row.diff() > 0).all()


def test_entries_of_members_are_dropped(generator):
    entries = draw_entries(generator, 6, 9, 0.7)
    member_mg = torch.rand(2, 9, generator=generator) < 0.5
    sets = GeneSets(torch.tensor([0, 1, 1, 0, 1, 0]), member_mg)
    kept = drop_members(entries, sets)
    assert torch.equal(kept.to_dense(9), entries.to_dense(9) * ~sets.to_dense())
    assert len(kept.gene) < len(entries.gene)


@pytest.mark.parametrize("kinds", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_numbers_of_two_kinds_are_refused(kinds, generator):
    entries, weight_gh = draw_entries(generator, 6, 9, 0.7), draw(generator, 9, LANES)
    entries = entries._replace(value=entries.value.to(kinds[0]))
    with pytest.raises(TypingError, match=r"entries of float\d\d times weights"):
        multiply(entries, weight_gh.to(kinds[1]))


def test_a_second_derivative_is_refused_and_not_wrong(generator):
    entries, weight_gh = draw_entries(generator, 4, 7, 0.9), draw(generator, 7, 3).requires_grad_()
    sampled = sample(draw(generator, 4, 3).requires_grad_(), weight_gh, *entries[:2])
    for made in (sampled, project(entries.indptr, sampled, 2)):
        (slope_gh,) = torch.autograd.grad(made.square().sum(), weight_gh, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope_gh.square().sum().backward()


def test_weights_handed_on_to_a_sum_get_its_gradient_too(generator):
    entries, weight_gh = draw_entries(generator, 4, 7, 0.9), draw(generator, 7, 3).requires_grad_()
    product_nh, weight = multiply(entries, weight_gh)
    (found,) = torch.autograd.grad(product_nh.sum() + weight.sum(), weight_gh)
    expected_nh = entries.to_dense(7) @ weight_gh
    (expected,) = torch.autograd.grad(expected_nh.sum() + weight_gh.sum(), weight_gh)
    assert torch.allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("power", [1, 2])
def test_large_logits_are_projected_as_in_float64(power, generator):
    logits = 1e8 + 8 * draw(generator, 40, dtype=torch.float32).round()
    indptr = torch.tensor([0, 20, 40])
    found, expected = (project(indptr, one, power) for one in (logits, logits.double()))
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-6)
    assert torch.allclose(expected[:20].sum(), torch.ones((), dtype=torch.float64))
