"""Sums over tiles of rows against those of all rows at once."""

import pytest
import torch
from torch import nn

from tabatlas.tabnet import tiles


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(0)
    linear = nn.utils.skip_init(nn.Linear, 4, 6, dtype=torch.float64)
    for parameter in linear.parameters():
        nn.init.normal_(parameter, generator=generator)
    return linear


@pytest.fixture
def rows_nk():
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def measure(linear, rows_nk):
    def add(tile, own):
        return linear(own).square().sum()

    return tiles.sum_tiles(add, rows_nk, list(linear.parameters()), 6)


@pytest.mark.parametrize("n_rows", [1, 3, 7, 100])
@pytest.mark.parametrize("frozen", [(), ("bias",), ("weight", "bias")])
def test_tiles_give_the_sum_and_the_gradients_of_what_is_trained(
    linear, rows_nk, n_rows, frozen, monkeypatch
):
    monkeypatch.setattr(tiles, "TILE_BYTES", n_rows * 6 * 8)
    for name in frozen:
        linear.get_parameter(name).requires_grad_(False)
    leaves = [rows_nk.requires_grad_(), *(p for p in linear.parameters() if p.requires_grad)]
    total, expected = measure(linear, rows_nk), linear(rows_nk).square().sum()
    assert torch.allclose(total, expected, rtol=1e-13)
    pairs = zip(*(torch.autograd.grad(3 * one, leaves) for one in (total, expected)), strict=True)
    assert all(torch.allclose(*pair, rtol=1e-12) for pair in pairs)


def test_a_second_derivative_is_refused_and_not_wrong(linear, rows_nk):
    total = measure(linear, rows_nk.requires_grad_())
    (slope_nk,) = torch.autograd.grad(total.square(), rows_nk, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope_nk.square().sum().backward()
