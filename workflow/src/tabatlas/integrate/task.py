"""The task of integration: a conditional autoencoder of counts."""

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.integrate.likelihood import measure_distance, measure_surprise
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.covariates import Covariates
from tabatlas.train.predict import draw_hidden, forget_levels, open_inputs


class ConditionalCounts:
    """Predict a cell's counts from its place and from what the decoder is told of it."""

    def __init__(
        self,
        embedder: Embedder,
        decoder: CountDecoder,
        presence_mg: Tensor,
        validation: PackedSource,
        rows: np.ndarray,
        batch_size: int,
        hidden_ratio: float,
        unknown_ratio: float,
        kl_weight: float,
    ) -> None:
        self.model = nn.ModuleDict({"embedder": embedder, "decoder": decoder})
        self.presence_mg = presence_mg
        self.validation, self.rows, self.batch_size = validation, rows, batch_size
        self.hidden_ratio, self.unknown_ratio = hidden_ratio, unknown_ratio
        self.kl_weight = kl_weight

    def loss(self, minibatch: Minibatch, generator: torch.Generator) -> Tensor:
        """Negative evidence lower bound in nats per gene, mean over cells."""
        x_ng, missing_ng, covariates = open_inputs(minibatch, self.presence_mg)
        drawn_ng = draw_hidden(missing_ng, self.hidden_ratio, generator)
        mean_nz, log_variance_nz = self.model["embedder"](x_ng, drawn_ng | missing_ng)
        noise_nz = torch.randn(mean_nz.shape, generator=generator, device=mean_nz.device)
        place_nz = mean_nz + noise_nz * (0.5 * log_variance_nz).exp()
        told = forget_levels(covariates, self.unknown_ratio, generator)
        loss_n = self.surprise(minibatch, place_nz, told, missing_ng)
        loss_n = loss_n + self.kl_weight * measure_distance(mean_nz, log_variance_nz)
        return loss_n.mean() / x_ng.shape[1]

    def surprise(
        self, minibatch: Minibatch, place_nz: Tensor, covariates: Covariates, missing_ng: Tensor
    ) -> Tensor:
        """Negative log probability (n,) of the cells' counts, given how many there are."""
        decoder = self.model["decoder"]
        count_ng = minibatch.scatter(minibatch.count, missing_ng.shape[1])
        log_share_ng = decoder(place_nz, covariates, missing_ng)
        size_n = count_ng.sum(dim=1, keepdim=True).clamp_min(1).log()
        dispersion_g = decoder.log_dispersion_g
        return measure_surprise(count_ng, log_share_ng + size_n, dispersion_g, ~missing_ng)

    def embed(self, x_ng: Tensor, missing_ng: Tensor, covariates: Covariates) -> Tensor:
        """The mean of each cell's Gaussian (n, z), as `predict` asks for it."""
        return self.model["embedder"](x_ng, missing_ng)[0]

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The bound on the validation cells, every gene seen, at the mean of their Gaussians."""
        totals = np.zeros(2)
        for minibatch in self.validation.iterate(self.rows, self.batch_size):
            moved = minibatch.to(self.presence_mg.device)
            x_ng, missing_ng, covariates = open_inputs(moved, self.presence_mg)
            mean_nz, log_variance_nz = self.model["embedder"](x_ng, missing_ng)
            surprise_n = self.surprise(moved, mean_nz, covariates, missing_ng)
            distance_n = measure_distance(mean_nz, log_variance_nz)
            totals += surprise_n.sum().item(), distance_n.sum().item()
        surprise, distance = totals / (len(self.rows) * self.presence_mg.shape[1])
        return {
            "validation_loss": surprise + self.kl_weight * distance,
            "validation_surprise": surprise,
        }
