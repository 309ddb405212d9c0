"""Small networks in float64, so that comparisons are about the mathematics."""

import pytest
import torch

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.encoder import Encoder

N_GENES = 12


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny() -> Architecture:
    return Architecture(n_d=4, n_a=3, n_steps=3, virtual_batch_size=8)


@pytest.fixture
def x_ng(generator) -> torch.Tensor:
    return torch.rand(16, N_GENES, generator=generator, dtype=torch.float64)


@pytest.fixture
def encoder(tiny, x_ng, generator) -> Encoder:
    return Encoder(tiny, x_ng.mean(0), x_ng.std(0), generator).double()
