"""The sparse form is the dense form: results, every gradient, every statistic, in float64."""

import pytest
import torch
from both_forms import compare_forms, draw_cells, draw_network, narrow, run
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas.tabnet.entries import from_dense
from tabatlas.tabnet.sparse import encode

N_CELLS, N_GENES = 41, 120
MASK_TYPES = ("sparsemax", "entmax")
# Gains of the mask logits, and the smallest and largest mean share of the seen genes they select.
SUPPORTS = {
    "one gene": (1e4, 0, 0.02),
    "few genes": (1.5, 0.02, 0.1),
    "many genes": (0.25, 0.1, 0.9),
    "all genes": (1e-4, 1, 1),
}


def tie_genes(network):
    """Give neighbors one logit: genes by fives."""
    for attend in network.encoder.attentive:
        for tensor in (attend.linear.weight, attend.norm.weight, attend.norm.bias):
            tensor.data.copy_(tensor.data[torch.arange(len(tensor)) // 5 * 5])


def make_heavy_tails(network, generator):
    for attend in network.encoder.attentive:
        attend.linear.weight.data.cauchy_(generator=generator)
        attend.norm.bias.data.cauchy_(sigma=0.3, generator=generator)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", SUPPORTS)
@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_masks_of_any_size_agree(mask_type, kind, training, generator):
    gain, fewest, most = SUPPORTS[kind]
    cells = draw_cells(N_CELLS, N_GENES, generator, with_covariates=False)
    network = draw_network(cells, generator, gain, mask_type=mask_type, n_steps=3).train(training)
    selected_sng = compare_forms(network, cells)["masks"] > 0
    n_seen = (~cells.hidden.to_dense()).sum()
    assert fewest <= selected_sng.sum() / (3 * n_seen) <= most


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_tied_and_heavy_tailed_logits_agree(mask_type, training, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator, with_covariates=False)
    network = draw_network(cells, generator, mask_type=mask_type, n_steps=2).train(training)
    make_heavy_tails(network, generator)
    compare_forms(network, cells)
    network = draw_network(cells, generator, mask_type=mask_type, n_steps=2).train(training)
    tie_genes(network)
    compare_forms(network, cells._replace(hidden=None))


@pytest.mark.parametrize("gamma", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_any_number_of_steps_and_any_relaxation_agree(mask_type, n_steps, gamma, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator)
    knobs = {"mask_type": mask_type, "n_steps": n_steps, "gamma": gamma}
    compare_forms(draw_network(cells, generator, **knobs), cells)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scaling", ["deviation", "batchnorm"])
def test_cells_without_counts_and_cells_without_seen_genes_agree(scaling, training, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator, n_sets=4, with_covariates=False)
    cells.x_ng[5] = 0
    cells.hidden.member_mg[2] = True
    cells.hidden.set_n[30:32] = 2
    network = draw_network(cells, generator, scaling=scaling).train(training)
    expected = compare_forms(network, cells)
    assert not expected["masks"][:, 30:32].any()
    nothing = cells._replace(x_ng=torch.zeros_like(cells.x_ng))
    # The cells of a chunk would be alike but for what is hidden, and a variance nearly 0.
    compare_forms(network.eval(), nothing)


@pytest.mark.parametrize("scaling", ["deviation", "batchnorm"])
def test_a_lone_cell_agrees_and_leaves_the_ghost_statistics(scaling, generator):
    cells = draw_cells(1, N_GENES, generator)
    network = draw_network(cells, generator, scaling=scaling)
    results = compare_forms(network, cells)
    for name, buffer in network.named_buffers():
        if "norm" in name:
            assert torch.equal(results[name], buffer)


@st.composite
def shapes(draw):
    """Cells, genes, and what else may meet."""
    return {
        "n_cells": draw(st.integers(12, 40)),
        "n_genes": draw(st.integers(1, 70)),
        "density": draw(st.sampled_from([0.02, 0.2, 1.0])),
        "n_sets": draw(st.integers(0, 4)),
        "with_covariates": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=shapes(),
    gain=st.sampled_from([1e-4, 0.3, 1.0, 5.0]),
    mask_type=st.sampled_from(MASK_TYPES),
    scaling=st.sampled_from(["deviation", "batchnorm"]),
    virtual_batch_size=st.integers(7, 24),
    n_steps=st.integers(1, 3),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_minibatches_of_any_shape_agree(shape, gain, training, seed, **knobs):
    generator = torch.Generator().manual_seed(seed)
    cells = draw_cells(generator=generator, **shape)
    compare_forms(draw_network(cells, generator, gain, **knobs).train(training), cells)


def test_cells_may_name_their_genes_in_two_bytes(generator):
    cells = draw_cells(N_CELLS, N_GENES, generator)
    network = draw_network(cells, generator)
    wide = from_dense(cells.x_ng)
    logits_nc, _ = network.classify(wide._replace(gene=wide.gene.short()), *cells[1:])
    assert torch.equal(logits_nc, network.classify(wide, *cells[1:])[0])


@pytest.mark.parametrize("place", ["input", "map", "mask"])
def test_what_is_not_a_number_reaches_the_loss(place, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator, n_sets=0)
    network = draw_network(cells, generator)
    if place == "input":
        cells.x_ng[3, 7] = torch.nan
    weights = {"map": network.encoder.shared[0], "mask": network.encoder.attentive[0].linear}
    if place in weights:
        weights[place].weight.data[2, 1] = torch.nan
    assert run(network, "sparse", cells)["loss"].isnan()


def test_under_autocast_selection_and_statistics_stay_in_float32(generator):
    cells = narrow(draw_cells(N_CELLS, N_GENES, generator))
    network = draw_network(cells, generator).float()
    with torch.autocast("cpu", torch.bfloat16):
        encoding = encode(network.encoder, from_dense(cells.x_ng), *cells[1:])
    (encoding.embedding_nd.sum() + encoding.entropy).backward()
    assert all(mask.value.dtype == torch.float32 for mask in encoding.masks)
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    assert all(buffer.dtype == torch.float32 for buffer in statistics)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
