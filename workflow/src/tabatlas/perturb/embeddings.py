"""Gene embeddings: the decoder's output layer, loadings of a PCA, or chance."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd

from tabatlas.perturb.heads import Embedding
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.decoder import Decoder


def embed_by_decoder(decoder: Decoder) -> np.ndarray:
    """Rows of the decoder's output layer (genes, n_d): what a gene's prediction reads."""
    return decoder.genes.weight.detach().cpu().numpy().astype(np.float64)


def embed_by_pca(source: PackedSource, decoder: Decoder, n_cells: int, seed: int) -> np.ndarray:
    """Loadings of training cells on as many components as the decoder is wide (genes, n_d).

    The cells are standardized as the decoder's targets are; a gene that was not measured is at its
    mean, 0.
    """
    rows = np.arange(min(n_cells, len(source)))  # the pack is shuffled: a random sample
    cells = source.read(rows)
    x_ng, missing_ng = cells.densify(source.n_genes), ~source.presence[cells.dataset]
    standardize = copy.deepcopy(decoder.standardize).cpu()  # the decoder stays where it is
    with torch.inference_mode():
        values_ng = standardize(x_ng).masked_fill(missing_ng, 0).numpy().astype(np.float64)
    values_ng -= values_ng.mean(axis=0)
    width = min(decoder.genes.in_features, *values_ng.shape)
    _, size, right = randomized_svd(values_ng, width, random_state=seed)
    return right.T * size / np.sqrt(len(rows))


def name_targets(matrix_gd: np.ndarray, places: dict[str, int]) -> Embedding:
    """The embeddings of targets, by name, from those of all genes.

    `places` is each target's place among the genes. A gene of which nothing was learnt, a row of
    zeros, has none.
    """
    learnt = {name: place for name, place in places.items() if matrix_gd[place].any()}
    center_d = matrix_gd.mean(axis=0)
    return Embedding(center_d, {name: matrix_gd[place] for name, place in learnt.items()})


def draw_embeddings(
    targets: Sequence[str], width: int, n_draws: int, rng: np.random.Generator
) -> list[Embedding]:
    """Random embeddings of the same targets: normal, independent."""
    drawn = rng.normal(size=(n_draws, len(targets), width))
    return [Embedding(np.zeros(width), dict(zip(targets, one, strict=True))) for one in drawn]
