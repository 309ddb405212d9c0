"""The encoder: what hidden genes, the prior, the minibatch and the generator do to it."""

from dataclasses import replace

import pytest
import torch

from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder, measure_entropy


@pytest.fixture
def hidden_ng(x_ng, generator) -> torch.Tensor:
    return torch.rand(x_ng.shape, generator=generator) < 0.5


@pytest.fixture(params=["deviation", "batchnorm"])
def any_encoder(request, tiny, x_ng, generator) -> Encoder:
    architecture = replace(tiny, scaling=request.param)
    encoder = Encoder(architecture, x_ng.mean(0), x_ng.std(0), generator).double()
    torch.nn.init.normal_(encoder.token_g, generator=generator)
    return encoder


def test_a_hidden_gene_changes_nothing_and_is_never_selected(any_encoder, x_ng, hidden_ng):
    first = any_encoder(x_ng, hidden_ng, return_masks=True)
    other = any_encoder(x_ng + 50 * hidden_ng, hidden_ng, return_masks=True)
    assert torch.equal(first.decision_snd, other.decision_snd)
    assert torch.equal(first.masks_sng, other.masks_sng)
    assert not first.masks_sng[:, hidden_ng].any()


def test_a_cell_of_hidden_genes_alone_gives_finite_gradients(encoder, x_ng, hidden_ng):
    hidden_ng[0] = True
    encoding = encoder(x_ng, hidden_ng, return_masks=True)
    (encoding.embedding_nd.sum() + encoding.entropy).backward()
    assert not encoding.masks_sng[:, 0].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_every_parameter_learns(encoder, x_ng, hidden_ng):
    encoding = encoder(x_ng, hidden_ng)
    (encoding.decision_snd.square().sum() + encoding.entropy).backward()
    unmoved = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    assert unmoved == set()


def test_a_cell_is_encoded_alike_in_any_minibatch(any_encoder, x_ng, hidden_ng):
    for _ in range(3):
        any_encoder(x_ng, hidden_ng)
    any_encoder.eval()
    whole = any_encoder(x_ng, hidden_ng).embedding_nd
    alone = [any_encoder(x_ng[[i]], hidden_ng[[i]]).embedding_nd for i in range(len(x_ng))]
    assert torch.allclose(whole, torch.cat(alone), rtol=0, atol=1e-12)


def test_one_generator_seed_gives_one_set_of_weights_whatever_torch_is_seeded_with(tiny):
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        statistics = torch.zeros(12), torch.ones(12)
        encoder = Encoder(tiny, *statistics, generator)
        decoder = Decoder(tiny, *statistics, generator)
        parts = (encoder, decoder, Classifier(encoder, 3, generator))
        return [parameter for part in parts for parameter in part.parameters()]

    state = torch.get_rng_state()
    first, again, other = draw(1), draw(1), draw(2)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    assert torch.equal(torch.get_rng_state(), state)


def test_with_gamma_one_a_fully_used_gene_is_left_out_of_later_steps(tiny, x_ng, generator):
    architecture = replace(tiny, gamma=1.0, n_steps=3, mask_type="sparsemax")
    encoder = Encoder(architecture, x_ng.mean(0), x_ng.std(0), generator).double()
    for attend in encoder.attentive:
        torch.nn.init.normal_(attend.norm.weight, std=50, generator=generator)
        torch.nn.init.constant_(attend.norm.bias, 200)  # positive logits: a prior of 0 is the least
    masks_sng = encoder(x_ng, return_masks=True).masks_sng
    used_ng = masks_sng[0] == 1
    assert used_ng.any()
    assert not masks_sng[1:, used_ng].any()


def test_masks_are_handed_out_only_when_asked_for(encoder, x_ng):
    assert encoder(x_ng).masks_sng is None
    masks_sng = encoder(x_ng, return_masks=True).masks_sng
    assert masks_sng.shape == (3, *x_ng.shape)
    assert torch.allclose(masks_sng.sum(-1), torch.ones(3, len(x_ng)).double())


def test_entropy_runs_from_zero_to_that_of_a_flat_mask():
    one = torch.eye(4).requires_grad_()
    measure_entropy(one).backward()
    assert measure_entropy(one) == 0
    assert one.grad.isfinite().all()
    assert torch.isclose(measure_entropy(torch.full((2, 4), 0.25)), torch.tensor(4.0).log())


def test_under_autocast_selection_and_statistics_stay_in_float32(tiny, x_ng, hidden_ng, generator):
    x_ng = x_ng.float()
    encoder = Encoder(tiny, x_ng.mean(0), x_ng.std(0), generator)
    with torch.autocast("cpu", torch.bfloat16):
        encoding = encoder(x_ng, hidden_ng, return_masks=True)
    encoding.embedding_nd.sum().backward()
    assert encoding.masks_sng.dtype == encoding.entropy.dtype == torch.float32
    statistics = [buffer for buffer in encoder.buffers() if buffer.is_floating_point()]
    assert all(buffer.dtype == torch.float32 for buffer in statistics)
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
