import pytest
import torch

from tabatlas.integrate.likelihood import measure_surprise
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.integrate.task import ConditionalCounts
from tabatlas.tabnet import tiles
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.covariates import Covariate, Covariates
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import GeneSets, from_dense

N_GENES, N_CELLS, N_LATENT = 12, 16, 5
CONDITIONS = (Covariate("batch", "condition", ("a", "b"), 3),)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def share_g():
    return torch.arange(1.0, N_GENES + 1) / sum(range(1, N_GENES + 1))


@pytest.fixture
def decoder(share_g, generator):
    return CountDecoder(N_LATENT, CONDITIONS, 8, share_g, generator)


def tell(level):
    """Covariates of cells that all have one batch."""
    return Covariates(torch.full((N_CELLS, 1), level), torch.empty(N_CELLS, 0))


def test_shares_are_those_of_the_measured_genes(decoder, generator):
    missing_ng = torch.zeros(N_CELLS, N_GENES, dtype=torch.bool)
    missing_ng[:, 3] = True
    place_nz = torch.randn(N_CELLS, N_LATENT, generator=generator)
    share_ng = decoder.share(decoder.transform(place_nz, tell(1)), missing_ng).exp()
    torch.testing.assert_close(share_ng.sum(dim=1), torch.ones(N_CELLS))
    assert not share_ng[:, 3].any()


def test_what_the_decoder_is_told_reaches_the_counts(decoder, generator):
    missing_ng = torch.zeros(N_CELLS, N_GENES, dtype=torch.bool)
    place_nz = torch.randn(N_CELLS, N_LATENT, generator=generator)
    shares = [
        decoder.share(decoder.transform(place_nz, tell(level)), missing_ng) for level in (0, 1, 2)
    ]
    assert not torch.equal(shares[0], shares[1])
    assert not torch.equal(shares[1], shares[2])


def test_the_encoder_is_told_nothing(generator):
    """An encoder pretrained with the library as an input embeds without it."""
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    batch = [Covariate("batch", "input", ("a", "b"), 3)]
    encoder = Encoder(Architecture(n_d=6, n_a=4), *statistics, generator, batch)
    embedder = Embedder(encoder, N_LATENT, generator).eval()
    x_ng = torch.rand(N_CELLS, N_GENES, generator=generator)
    mean_nz, _ = embedder(
        from_dense(x_ng),
        GeneSets(torch.zeros(N_CELLS, dtype=torch.int64), torch.zeros(1, N_GENES) > 0),
    )
    assert mean_nz.shape == (N_CELLS, N_LATENT)
    unknown = encoder(x_ng, covariates=tell(0)).embedding_nd
    torch.testing.assert_close(embedder.mean(unknown), mean_nz)


def test_surprise_by_tiles_is_that_of_all_cells_at_once(decoder, generator, monkeypatch):
    count_ng = torch.randint(0, 4, (N_CELLS, N_GENES), generator=generator).float()
    presence_mg = torch.rand(2, N_GENES, generator=generator) < 0.8
    missing = GeneSets(torch.arange(N_CELLS) % 2, ~presence_mg)
    missing_ng = missing.to_dense()
    counts = from_dense(count_ng.masked_fill(missing_ng, 0))
    place_nz = torch.randn(N_CELLS, N_LATENT, generator=generator).requires_grad_()
    task = ConditionalCounts(None, decoder, presence_mg, None, None, N_CELLS, 0.0, 0.0, 1.0)
    monkeypatch.setattr(tiles, "TILE_BYTES", 5 * N_GENES * 4)
    found = task.sum_surprise(counts, place_nz, tell(1), missing)
    count_ng = counts.to_dense(N_GENES)
    log_share_ng = decoder.share(decoder.transform(place_nz, tell(1)), missing_ng)
    log_mean_ng = log_share_ng + count_ng.sum(dim=1, keepdim=True).clamp_min(1).log()
    expected = measure_surprise(count_ng, log_mean_ng, decoder.log_dispersion_g, ~missing_ng).sum()
    torch.testing.assert_close(found, expected)
    leaves = [place_nz, *decoder.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
