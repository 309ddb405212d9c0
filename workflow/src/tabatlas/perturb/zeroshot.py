"""Zero-shot: perturb a gene in the input of the pretrained network and read what it predicts.

    effect = mean over control cells and masks of
             decoder(encoder(x with the target set)) − decoder(encoder(x)), in log1p(CP10k)

A share of the other genes is hidden, the same with and without; the target is seen in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from tabatlas.perturb.settings import PerturbSettings
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.train.device import seed_generator

ACTIVATED, KNOCKED_OUT = "activated", "knocked out"
# Words of the CELLxGENE schema and those in common use.
ACTIVATIONS = ("activation", "crispra", "overexpression", "orf")
KNOCK_OUTS = ("interference", "crispri", "knockout", "knock-out", "crispr-cas9", "mutant")
CHUNK = 256  # rows of the network at once


def find_direction(strategy: str) -> str | None:
    """Whether a strategy raises or removes its target; None where it is not known."""
    word = strategy.lower()
    if any(one in word for one in ACTIVATIONS):
        return ACTIVATED
    return KNOCKED_OUT if any(one in word for one in KNOCK_OUTS) else None


@dataclass(frozen=True)
class Network:
    """The pretrained network, its genes, and what each is set to when it is activated.

    `high_g` is NaN for a gene that no sampled training cell expresses.
    """

    encoder: Encoder
    decoder: Decoder
    genes: pd.Index
    high_g: np.ndarray


def find_high_values(source: PackedSource, n_cells: int, quantile: float) -> np.ndarray:
    """A quantile of each gene's log1p(CP10k) over the training cells that express it (g,)."""
    rows = np.arange(min(n_cells, len(source)))
    values = sp.csc_matrix(source.read(rows).densify(source.n_genes).numpy())
    bounds = zip(values.indptr[:-1], values.indptr[1:], strict=True)
    columns = (values.data[start:stop] for start, stop in bounds)
    return np.array([np.quantile(one, quantile) if len(one) else np.nan for one in columns])


def read_controls(
    network: Network, genes: pd.Index, control_ng: sp.csr_matrix
) -> tuple[Tensor, Tensor]:
    """Control cells over the network's genes, and which of those the screen did not measure.

    What was not measured is at its mean, which matters for a target alone: all others stay hidden.
    """
    places = genes.get_indexer(network.genes)
    measured = places >= 0
    x_ng = network.decoder.standardize.mean_g.cpu().numpy()[None].repeat(control_ng.shape[0], 0)
    x_ng[:, measured] = control_ng[:, places[measured]].toarray()
    missing_ng = np.broadcast_to(~measured, x_ng.shape).copy()
    return torch.from_numpy(x_ng), torch.from_numpy(missing_ng)


@torch.inference_mode()
def predict_zero_shot(
    network: Network,
    cells: tuple[Tensor, Tensor],
    places: Sequence[int],
    direction: str,
    settings: PerturbSettings,
) -> np.ndarray:
    """Effect of perturbing the genes at `places` on every gene of the network (g,)."""
    if not places:
        return np.zeros(len(network.genes))
    device = network.decoder.genes.weight.device
    x_ng, missing_ng = (one.to(device) for one in cells)
    set_ng = x_ng.clone()
    high_k = torch.from_numpy(network.high_g[list(places)].astype(np.float32)).to(device)
    set_ng[:, list(places)] = high_k if direction == ACTIVATED else 0.0
    total_g = torch.zeros(len(network.genes), dtype=torch.float64, device=device)
    for mask in range(settings.n_masks):
        generator = seed_generator(device, settings.seed, mask)
        coin_ng = torch.rand(missing_ng.shape, generator=generator, device=device)
        hidden_ng = missing_ng | (coin_ng < settings.hidden_ratio)
        hidden_ng[:, list(places)] = False
        for start in range(0, len(x_ng), CHUNK):
            rows = slice(start, start + CHUNK)
            with_ng, without_ng = (
                network.decoder(network.encoder(one[rows], hidden_ng[rows]).decision_snd)
                for one in (set_ng, x_ng)
            )
            total_g += (with_ng - without_ng).double().sum(dim=0)
    effect_g = total_g / (settings.n_masks * len(x_ng)) * network.decoder.standardize.deviation_g
    return effect_g.cpu().numpy()


def find_places(targets: Sequence[str], feature_ids: Sequence[str], genes: pd.Index) -> dict:
    """Place of each target among genes; those that are not there are left out."""
    found = genes.get_indexer(list(feature_ids))
    return {name: int(place) for name, place in zip(targets, found, strict=True) if place >= 0}
