"""The loss of pretraining, and that pretraining lowers it."""

import torch

from tabatlas.tabnet import tiles
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import GeneSets, from_dense
from tabatlas.tabnet.reconstruction import sum_errors, sum_mean_errors


def masked_loss(predicted_ng, target_ng, scored_ng):
    """Mean squared error where scored, all at once: what the tiles must add up to."""
    return ((predicted_ng - target_ng) * scored_ng).square().sum() / scored_ng.sum()


def test_predicting_the_mean_scores_exactly_the_genes_variance(x_ng, tiny, generator):
    variance_g = torch.linspace(0.5, 2, 12).double()
    decoder = Decoder(tiny, x_ng.mean(0), (x_ng.var(0) / variance_g).sqrt(), generator).double()
    target_ng = decoder.standardize(x_ng)
    for gene in range(12):
        scored_ng = torch.zeros(x_ng.shape, dtype=torch.bool)
        scored_ng[:, gene] = True
        loss = masked_loss(torch.zeros_like(x_ng), target_ng, scored_ng) * 16 / 15
        assert torch.isclose(loss, variance_g[gene], rtol=1e-5)


def test_an_untrained_decoder_predicts_the_mean(encoder, tiny, x_ng, generator):
    decoder = Decoder(tiny, x_ng.mean(0), x_ng.std(0), generator).double()
    assert not decoder(encoder(x_ng).decision_snd).any()


def test_pretraining_beats_the_mean_where_genes_go_together(generator):
    program_nk = torch.randn(512, 3, generator=generator)
    loading_kg = torch.randn(3, 40, generator=generator)
    x_ng = program_nk @ loading_kg + 0.3 * torch.randn(512, 40, generator=generator)
    architecture = Architecture(n_d=16, n_a=16, n_steps=2, virtual_batch_size=128)
    statistics = x_ng.mean(0), x_ng.std(0)
    encoder = Encoder(architecture, *statistics, generator)
    decoder = Decoder(architecture, *statistics, generator)
    target_ng = decoder.standardize(x_ng)

    def score(rows, hidden_ng):
        prediction_ng = decoder(encoder(x_ng[rows], hidden_ng).decision_snd)
        return masked_loss(prediction_ng, target_ng[rows], hidden_ng)

    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(60):
        rows = torch.randint(384, (128,), generator=generator)
        optimizer.zero_grad()
        score(rows, torch.rand(128, 40, generator=generator) < 0.3).backward()
        optimizer.step()
    encoder.eval(), decoder.eval()
    held_out = slice(384, 512)
    hidden_ng = torch.rand(128, 40, generator=generator) < 0.3
    baseline = masked_loss(torch.zeros(128, 40), target_ng[held_out], hidden_ng)
    assert score(held_out, hidden_ng) < 0.7 * baseline


def test_errors_by_tiles_are_those_of_the_dense_decoder(
    encoder, tiny, x_ng, generator, monkeypatch
):
    """Value and every gradient; also those of predicting the mean."""
    decoder = Decoder(tiny, x_ng.mean(0), x_ng.std(0), generator).double()
    torch.nn.init.normal_(decoder.genes.weight, generator=generator)
    member_mg = torch.rand(3, x_ng.shape[1], generator=generator) < 0.4
    scored = GeneSets(torch.randint(3, (len(x_ng),), generator=generator), member_mg)
    scored_ng = scored.to_dense()
    decision_snd = encoder(x_ng).decision_snd.detach().requires_grad_()
    leaves = [decision_snd, *decoder.parameters()]
    target_ng = decoder.standardize(x_ng)
    expected = masked_loss(decoder(decision_snd), target_ng, scored_ng) * scored_ng.sum()
    monkeypatch.setattr(tiles, "TILE_BYTES", 5 * x_ng.shape[1] * 8)
    found = sum_errors(decoder, decision_snd, from_dense(x_ng), scored)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        *(torch.autograd.grad(one, leaves) for one in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    at_mean = masked_loss(torch.zeros_like(x_ng), target_ng, scored_ng) * scored.count()
    by_tiles = sum_mean_errors(decoder, from_dense(x_ng), scored)
    torch.testing.assert_close(by_tiles, at_mean, rtol=1e-12, atol=0)
