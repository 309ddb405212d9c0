"""The loss of pretraining: how well hidden genes are predicted."""

import torch
from torch import Tensor

from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.tabnet.tiles import sum_tiles


def sum_errors(decoder: Decoder, decision_snd: Tensor, x: Entries, scored: GeneSets) -> Tensor:
    """Sum of squared errors of standardized values where `scored`, tile by tile.

    `x` is log1p(CP10k) of all measured genes, hidden or not. Predicting 0, a gene's mean, scores
    its variance in every entry.
    """
    n_genes = scored.member_mg.shape[1]

    def measure(tile: slice, features_td: Tensor) -> Tensor:
        target_tg = standardize_tile(decoder, x, tile, n_genes)
        predicted_tg = at_least_float32(decoder.genes(features_td))
        return square_errors(predicted_tg - target_tg, scored, tile)

    weights = list(decoder.genes.parameters())
    return sum_tiles(measure, decoder.transform(decision_snd), weights, n_genes)


@torch.no_grad()
def sum_mean_errors(decoder: Decoder, x: Entries, scored: GeneSets) -> Tensor:
    """`sum_errors` of predicting each gene's mean over the training cells, which is 0."""
    n_genes = scored.member_mg.shape[1]

    def measure(tile: slice, nothing: Tensor) -> Tensor:
        return square_errors(standardize_tile(decoder, x, tile, n_genes), scored, tile)

    return sum_tiles(measure, x.value.new_empty(x.n_rows, 0), [], n_genes)


def standardize_tile(decoder: Decoder, x: Entries, tile: slice, n_genes: int) -> Tensor:
    """Standardized values of a tile's cells (t, g)."""
    return decoder.standardize(x.slice(tile.start, tile.stop).to_dense(n_genes))


def square_errors(error_tg: Tensor, scored: GeneSets, tile: slice) -> Tensor:
    """Sum of squares where the cells of a tile are scored."""
    return (error_tg * scored.member_mg[scored.set_n[tile]]).square().sum()
