"""The network: TabNet's encoder, a Gaussian per cell, a decoder that is told library and assay.

The encoder gets no covariate. What the decoder is told, the embedding need not hold (Lopez et al.
2018, scVI, whose encoder is a multilayer perceptron).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.covariates import CONDITION, Covariate, CovariateColumns, Covariates
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.layers import draw_linear
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.tabnet.sparse import encode
from tabatlas.train.model import Model, build_encoder
from tabatlas.train.tensors import load_weights, pick

MOST_LOG_DISPERSION = 7.0


class Embedder(nn.Module):
    """From measured genes to the mean and the log variance of a cell's place."""

    def __init__(self, encoder: Encoder, n_latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.architecture.n_d
        self.mean = draw_linear(width, n_latent, generator)
        self.log_variance = draw_linear(width, n_latent, generator)

    def forward(self, x: Entries, hidden: GeneSets) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, z), float32. Covariates of the encoder stay unknown."""
        embedding_nd = encode(self.encoder, x, hidden).embedding_nd
        both = self.mean(embedding_nd), self.log_variance(embedding_nd)
        return tuple(map(at_least_float32, both))


class CountDecoder(nn.Module):
    """From a place and its conditions to each measured gene's share of the counts."""

    def __init__(
        self,
        n_latent: int,
        conditions: Sequence[Covariate],
        width: int,
        share_g: Tensor,
        generator: torch.Generator,
    ) -> None:
        """`share_g` is each gene's share of the training counts: what is predicted untrained."""
        super().__init__()
        self.conditions = CovariateColumns(conditions, CONDITION, generator)
        self.first = draw_linear(n_latent + len(self.conditions), width, generator)
        self.norm = nn.LayerNorm(width)
        self.genes = draw_linear(width + len(self.conditions), len(share_g), generator)
        self.bias_g = nn.Parameter(share_g.clamp_min(1e-8).log())
        self.dispersion_g = nn.Parameter(torch.zeros(len(share_g)))

    @property
    def log_dispersion_g(self) -> Tensor:
        """Log of θ (g,), within ±7: e⁷ is Poisson for all purposes.

        Of Poisson counts θ would grow without end, and float32 holds lgamma(count + θ) − lgamma(θ)
        to 4 digits at e⁷, to none at e¹⁶.
        """
        return MOST_LOG_DISPERSION * torch.tanh(self.dispersion_g / MOST_LOG_DISPERSION)

    def transform(self, place_nz: Tensor, covariates: Covariates) -> Tensor:
        """Features (n, width + conditions) that `share` reads."""
        condition_nc = self.conditions(covariates)
        hidden = F.relu(self.norm(self.first(torch.cat([place_nz, condition_nc], dim=1))))
        return torch.cat([hidden, condition_nc], dim=1)

    def share(self, features_nw: Tensor, missing_ng: Tensor) -> Tensor:
        """Log share (n, g) of the counts of all measured genes; -inf where a gene is missing."""
        logits_ng = self.genes(features_nw) + self.bias_g
        logits_ng = at_least_float32(logits_ng)
        return F.log_softmax(logits_ng.masked_fill(missing_ng, -torch.inf), dim=1)


def restore_embedder(model: Model) -> Embedder:
    """The embedder of a model's folder, on the CPU: all that new cells need."""
    generator = torch.Generator()  # what it draws is replaced
    encoder = build_encoder(model.architecture, model.genes, model.covariates, generator)
    embedder = Embedder(encoder, model.about["n_latent"], generator)
    load_weights(embedder, pick(model.tensors, "embedding/embedder"), "embedding")
    return embedder
