"""Sparsemax and entmax-1.5 against their definitions and against the `entmax` package."""

import math

import entmax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas.tabnet.projections import PROJECTIONS, find_threshold

PEERS = {"sparsemax": entmax.sparsemax, "entmax": entmax.entmax15}
LOGITS = {
    "normal": lambda g: torch.randn(8, 300, generator=g, dtype=torch.float64),
    "nearly flat": lambda g: 1e-3 * torch.randn(8, 300, generator=g, dtype=torch.float64),
    "heavy-tailed": lambda g: torch.empty(8, 300, dtype=torch.float64).cauchy_(generator=g),
    "tied": lambda g: torch.randint(-2, 3, (8, 300), generator=g).double() / 4,
    "one gene": lambda g: torch.randn(8, 1, generator=g, dtype=torch.float64),
}

row = st.lists(
    st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 1e-30])),
    min_size=1,
    max_size=40,
)


@pytest.fixture(params=PROJECTIONS)
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("kind", LOGITS)
def test_masks_and_gradients_are_those_of_the_entmax_package(name, kind, generator):
    ours = LOGITS[kind](generator).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    mask, expected = PROJECTIONS[name](ours), PEERS[name](theirs, dim=-1)
    (mask * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(mask, expected, rtol=0, atol=1e-10)
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-10)


def test_gradients_are_those_of_finite_differences(name, generator):
    hidden = torch.full((4, 2), -math.inf, dtype=torch.float64)
    seen = torch.randn(4, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: PROJECTIONS[name](torch.cat([z, hidden], 1)), seen)


@settings(deadline=None, max_examples=200)
@given(values=row)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_row_sums_to_one_and_hidden_genes_get_exactly_nothing(name, values):
    logits = torch.tensor([values], requires_grad=True)
    mask = PROJECTIONS[name](logits)
    mask.square().sum().backward()
    possible = any(value > -math.inf for value in values)
    assert mask.sum().item() == pytest.approx(1 if possible else 0, abs=1e-5)
    assert (mask >= 0).all()
    assert logits.grad.isfinite().all()
    hidden = logits == -math.inf
    assert not mask[hidden].any()
    assert not logits.grad[hidden].any()


@settings(deadline=None, max_examples=100)
@given(values=row)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_genes_with_equal_logits_get_equal_shares_and_larger_logits_no_less(name, values):
    mask = PROJECTIONS[name](torch.tensor(sorted(values)))
    assert (mask.diff() >= 0).all()
    first, last = values.index(max(values)), len(values)
    again = PROJECTIONS[name](torch.tensor([*values, values[first]]))
    assert again[first] == again[last]


def test_flat_logits_select_every_gene_alike(name):
    mask = PROJECTIONS[name](torch.full((2, 13_000), 3.0))
    assert torch.allclose(mask, torch.tensor(1 / 13_000), rtol=1e-5)


def test_newton_stays_within_its_bound_where_logits_shrink_geometrically(name):
    """Each step can then drop only few genes: the slowest case for Newton."""
    power = {"sparsemax": 1, "entmax": 2}[name]
    shifted = -(2.0 ** -torch.arange(60, dtype=torch.float64)).repeat(50)[None]
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.float64), shifted], dim=1)
    threshold = find_threshold(shifted, power)
    total = (shifted - threshold).clamp_min(0).pow(power).sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_projected_in_float32(name, dtype, generator):
    logits = torch.randn(4, 50, generator=generator).to(dtype)
    mask = PROJECTIONS[name](logits)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, PROJECTIONS[name](logits.float()))
