"""The task of integration: a conditional autoencoder of counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.integrate.likelihood import measure_distance, measure_surprise
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.tiles import sum_tiles
from tabatlas.train.predict import draw_hidden, forget_levels, open_inputs
from tabatlas.train.step import Attend


class CountedCells(NamedTuple):
    """Cells of which genes are hidden, and the counts of all that was measured."""

    x: Entries
    missing: GeneSets
    hidden: GeneSets
    covariates: Covariates  # that the decoder is told
    count: Tensor  # of the entries of x
    noise_nz: Tensor  # in standard deviations


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

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> CountedCells:
        """Hide genes, forget levels, and draw where in its Gaussian each cell stands."""
        x, missing, covariates = open_inputs(minibatch, self.presence_mg)
        hidden, _ = draw_hidden(missing, self.hidden_ratio, generator)
        shape = (len(minibatch), self.model["embedder"].mean.out_features)
        noise_nz = torch.randn(shape, generator=generator, device=x.value.device)
        told = forget_levels(covariates, self.unknown_ratio, generator)
        return CountedCells(x, missing, hidden, told, minibatch.count, noise_nz)

    def sizes(self, inputs: CountedCells) -> tuple[int]:
        """Cells."""
        return (inputs.x.n_rows,)

    def loss(self, inputs: CountedCells, totals: Sequence[int]) -> Tensor:
        """Negative evidence lower bound in nats per gene: these cells' part of the mean."""
        x, missing, hidden, told, count, noise_nz = inputs
        (n_cells,) = totals
        mean_nz, log_variance_nz = self.model["embedder"](x, hidden)
        place_nz = mean_nz + noise_nz * (0.5 * log_variance_nz).exp()
        surprise = self.sum_surprise(x._replace(value=count), place_nz, told, missing)
        distance = measure_distance(mean_nz, log_variance_nz).sum()
        return (surprise + self.kl_weight * distance) / (n_cells * self.presence_mg.shape[1])

    def sum_surprise(
        self, counts: Entries, place_nz: Tensor, covariates: Covariates, missing: GeneSets
    ) -> Tensor:
        """Negative log probability of the cells' counts, given how many each has; their sum."""
        decoder, n_genes = self.model["decoder"], self.presence_mg.shape[1]

        def measure(tile: slice, features_tw: Tensor) -> Tensor:
            count_tg = counts.slice(tile.start, tile.stop).to_dense(n_genes)
            missing_tg = missing.member_mg[missing.set_n[tile]]
            log_share_tg = decoder.share(features_tw, missing_tg)
            size_t = count_tg.sum(dim=1, keepdim=True).clamp_min(1).log()
            dispersion_g = decoder.log_dispersion_g
            return measure_surprise(
                count_tg, log_share_tg + size_t, dispersion_g, ~missing_tg
            ).sum()

        features_nw = decoder.transform(place_nz, covariates)
        weights = [*decoder.genes.parameters(), decoder.bias_g, decoder.dispersion_g]
        return sum_tiles(measure, features_nw, weights, n_genes)

    def embed(self, x: Entries, missing: GeneSets, covariates: Covariates) -> Tensor:
        """The mean of each cell's Gaussian (n, z), as `predict` asks for it."""
        return self.model["embedder"](x, missing)[0]

    @torch.inference_mode()
    def validate(self, attend: Attend = iter) -> dict[str, float]:
        """The bound on the validation cells, every gene seen, at the mean of their Gaussians."""
        totals = np.zeros(2)
        for minibatch in attend(self.validation.iterate(self.rows, self.batch_size)):
            moved = minibatch.to(self.presence_mg.device)
            x, missing, covariates = open_inputs(moved, self.presence_mg)
            mean_nz, log_variance_nz = self.model["embedder"](x, missing)
            counts = x._replace(value=moved.count)
            surprise = self.sum_surprise(counts, mean_nz, covariates, missing)
            totals += surprise.item(), measure_distance(mean_nz, log_variance_nz).sum().item()
        surprise, distance = totals / (len(self.rows) * self.presence_mg.shape[1])
        return {
            "validation_loss": surprise + self.kl_weight * distance,
            "validation_surprise": surprise,
        }
