"""At a kink the sparse form is the dense one, and its gradient that of a neighboring piece."""

import pytest
import torch
from both_forms import FORMS, classify, draw_cells, draw_network

from tabatlas.tabnet.entries import from_dense
from tabatlas.tabnet.sparse import encode

STEP = 1e-6  # of the finite differences, whose error is about as large


def tie_threshold(network):
    """Logits of exactly 1, 0 and less: a second gene stands at the threshold of the first alone."""
    attend = network.encoder.attentive[0]
    height = {"sparsemax": 1.0, "entmax": 2.0}[network.encoder.architecture.mask_type]
    attend.linear.weight.data.zero_()
    attend.norm.running_mean.zero_()
    attend.norm.bias.data.fill_(-3.0)
    attend.norm.bias.data[4], attend.norm.bias.data[9] = height, 0.0


def tie_decision(network):
    """A decision of exactly 0 before its ReLU, in every cell."""
    for norm in network.encoder.feature[0].norms:
        norm.weight.data[1], norm.bias.data[1], norm.running_mean[1] = 0.0, 0.0, 0.0


def measure_loss(network, form, cells):
    logits_nc, encoding, masks_snq = classify(network, form, cells)
    # Without the entropy: its slope has no limit where a mask goes to 0.
    return logits_nc.square().sum() + encoding.decision_snd.sum(), masks_snq


def measure_slopes(network, cells, direction):
    """One-sided slopes of the loss along a direction in the space of parameters."""
    losses = []
    for sign in (0, 1, -1):
        with torch.no_grad():
            for parameter, way in direction:
                parameter += sign * STEP * way
            losses.append(measure_loss(network, "dense", cells)[0].item())
            for parameter, way in direction:
                parameter -= sign * STEP * way
    return (losses[1] - losses[0]) / STEP, (losses[0] - losses[2]) / STEP


@pytest.mark.parametrize("tie", [tie_threshold, tie_decision])
@pytest.mark.parametrize("mask_type", ["sparsemax", "entmax"])
def test_a_tie_has_the_gradient_of_one_side(mask_type, tie, generator):
    cells = draw_cells(12, 15, generator, n_sets=0, with_covariates=False)
    network = draw_network(cells, generator, mask_type=mask_type, n_steps=1).eval()
    tie(network)
    attend, feature = network.encoder.attentive[0], network.encoder.feature[0]
    moved = {tie_threshold: [attend.norm.bias], tie_decision: [feature.norms[-1].bias]}[tie]
    gradients, masks = [], []
    for form in FORMS:
        network.zero_grad()
        loss, masks_snq = measure_loss(network, form, cells)
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in moved])
        masks.append(masks_snq.detach())
    assert torch.allclose(*masks, rtol=0, atol=1e-14)
    for _ in range(4):
        ways = [torch.randn(p.shape, generator=generator).double() for p in moved]
        sides = measure_slopes(network, cells, list(zip(moved, ways, strict=True)))
        for gradient in gradients:
            slope = sum((one * way).sum().item() for one, way in zip(gradient, ways, strict=True))
            assert min(abs(slope - side) for side in sides) < 1e-4 * max(1, abs(slope))


def test_the_tie_is_a_kink(generator):
    """Otherwise the test above would show nothing."""
    cells = draw_cells(12, 15, generator, n_sets=0, with_covariates=False)
    network = draw_network(cells, generator, mask_type="sparsemax", n_steps=1).eval()
    tie_threshold(network)
    way = torch.zeros(15).double()
    way[9] = 1
    right, left = measure_slopes(network, cells, [(network.encoder.attentive[0].norm.bias, way)])
    assert abs(right - left) > 1e-2


@pytest.mark.parametrize("mask_type", ["sparsemax", "entmax"])
def test_finite_differences_give_every_gradient_of_the_encoder(mask_type, generator):
    cells = draw_cells(6, 5, generator, density=0.6)
    shape = {"n_d": 2, "n_a": 2, "n_steps": 2, "n_shared": 1, "n_independent": 1}
    network = draw_network(cells, generator, mask_type=mask_type, **shape, virtual_batch_size=4)
    encoder, x = network.encoder, from_dense(cells.x_ng)

    def run(value, *_):
        # The parameters are moved in place.
        encoding = encode(encoder, x._replace(value=value), *cells[1:])
        return encoding.decision_snd, encoding.entropy

    moved = (x.value.requires_grad_(), *encoder.parameters())
    assert torch.autograd.gradcheck(run, moved, fast_mode=True)
