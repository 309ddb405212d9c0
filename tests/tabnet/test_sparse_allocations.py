"""The sparse form never holds a tensor of cells × genes; the dense form does, and is seen to."""

import numpy as np
import pytest
import torch
from both_forms import FORMS, draw_cells, draw_network, narrow, weigh

from allocations import watch_allocations
from tabatlas.tabnet.entries import from_dense

# So large that weights, a tile of logits (2²⁰) and all entries of the cells and of flat masks over
# an eighth of the genes stay below cells × genes.
N_CELLS, N_GENES = 1024, 4096


@pytest.fixture(scope="module")
def cells():
    generator = torch.Generator().manual_seed(0)
    return narrow(draw_cells(N_CELLS, N_GENES, generator, density=0.05))


@pytest.fixture(scope="module")
def network(cells):
    generator = torch.Generator().manual_seed(0)
    knobs = {"n_steps": 3, "virtual_batch_size": 256, "scaling": "batchnorm"}
    groups = torch.arange(512).view(-1, 8).tolist()
    return draw_network(cells, generator, 0.5, groups, **knobs).float()


def measure(network, form, cells, training):
    """Allocations of a training step, or of a prediction."""
    x = from_dense(cells.x_ng)
    hidden_ng = cells.hidden.to_dense()
    optimizer = torch.optim.AdamW(network.parameters())
    network.train(training)

    def step():
        if form == "dense":
            logits_nc, encoding = network(cells.x_ng, hidden_ng, cells.covariates)
        else:
            logits_nc, encoding = network.classify(x, *cells[1:])
        if training:
            weigh(logits_nc, encoding).backward()
            optimizer.step()
            optimizer.zero_grad()

    with torch.set_grad_enabled(training):
        step()  # compiles
        with watch_allocations() as seen:
            step()
    return seen


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_only_the_dense_form_allocates_cells_times_genes(network, cells, form, training):
    seen = measure(network, form, cells, training)
    holds_all = seen.largest >= N_CELLS * N_GENES
    assert holds_all == (form == "dense"), seen
    # A byte for each would already be too much.
    assert form == "dense" or seen.numpy_bytes < N_CELLS * N_GENES, seen


def test_arrays_of_numpy_are_seen():
    with watch_allocations() as seen:
        kept = torch.zeros(3), np.ones(10**6, np.bool_)
    assert seen.numpy_bytes >= 10**6
    assert seen.largest == len(kept[0])
