"""Synthetic cells for tabnet.py, and mask gains with which a random network selects k genes."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from tabnet_yardstick import GhostBatchNorm, densify
from torch import Tensor, nn

DENSITY = 0.1
N_CLASSES = 164  # scTab's cell types
N_CALIBRATED = 256  # cells: a chunk of ghost batch normalization, whose statistics are those of any


class Cells(NamedTuple):
    """CSR rows of log1p(CP10k), each cell's class, and the genes' statistics."""

    indptr: Tensor
    gene: Tensor
    value: Tensor
    label_n: Tensor
    mean_g: Tensor
    sd_g: Tensor

    def first(self, n: int) -> "Cells":
        """The first n cells."""
        n_entries = int(self.indptr[n])
        entries = (self.indptr[: n + 1], self.gene[:n_entries], self.value[:n_entries])
        return Cells(*entries, self.label_n[:n], self.mean_g, self.sd_g)

    def dense(self) -> Tensor:
        """The same cells as [n, g]."""
        return densify(self.indptr, self.gene, self.value, len(self.mean_g))

    def to(self, device: str) -> "Cells":
        """The same cells on another device."""
        return Cells(*(tensor.to(device) for tensor in self))


def draw_cells(n_cells: int, n_genes: int, seed: int = 0) -> Cells:
    """Poisson counts, popularity 1 / rank, every class with a factor of its own for each gene."""
    rng = np.random.default_rng(seed)
    popularity_g = rng.permutation(1 / np.arange(1, n_genes + 1))
    factor_cg = rng.lognormal(sigma=1.0, size=(N_CLASSES, n_genes))
    label_n = rng.integers(N_CLASSES, size=n_cells)
    depth = find_depth(popularity_g * factor_cg)
    blocks = [
        sp.csr_array(rng.poisson(depth * popularity_g * factor_cg[labels]))
        for labels in np.array_split(label_n, -(-n_cells // 256))
    ]
    counts = sp.vstack(blocks, format="csr")
    scale_n = 1e4 / counts.sum(axis=1)
    value = np.log1p(counts.data * np.repeat(scale_n, np.diff(counts.indptr)))
    counts = sp.csr_array((value, counts.indices, counts.indptr), shape=counts.shape)
    mean_g = counts.mean(axis=0)
    sd_g = np.sqrt(np.maximum(counts.multiply(counts).mean(axis=0) - mean_g**2, 0))
    return Cells(
        torch.from_numpy(counts.indptr.astype(np.int64)),
        torch.from_numpy(counts.indices.astype(np.int32)),
        torch.from_numpy(value.astype(np.float32)),
        torch.from_numpy(label_n),
        torch.from_numpy(mean_g).float(),
        torch.from_numpy(sd_g).float(),
    )


def find_depth(rate_cg: np.ndarray) -> float:
    """The factor of the rates at which `DENSITY` of all counts are not 0."""
    low, high = 0.0, 1e9
    for _ in range(60):
        middle = (low + high) / 2
        sparse = (1 - np.exp(-middle * rate_cg)).mean() < DENSITY
        low, high = (middle, high) if sparse else (low, middle)
    return low


@torch.no_grad()
def calibrate(network: nn.Module, cells: Cells, k: float) -> None:
    """Set the gain of every mask's normalization so that a cell's step selects k genes on average.

    `network` is the yardstick, in training mode; its running statistics become those of `cells`.
    """
    x_ng, gain = cells.first(N_CALIBRATED).dense(), 0.5
    for _ in range(6):
        set_gain(network, gain)
        # The support falls about as gain ** -1.6.
        gain *= (measure_support(network, x_ng)[0] / k) ** 0.6
    norms = [one for one in network.modules() if isinstance(one, GhostBatchNorm)]
    momentum = norms[0].momentum
    for number in (1.0, momentum):
        for norm in norms:
            norm.momentum = number
        network.encoder(x_ng)


def set_gain(network: nn.Module, gain: float) -> None:
    """The same gain for all genes and steps; 0.01 is that of an untrained network."""
    for attentive in network.encoder.attentive:
        nn.init.constant_(attentive.norm.weight, gain)


@torch.no_grad()
def measure_support(
    network: nn.Module, x_ng: Tensor, hidden_ng: Tensor | None = None
) -> tuple[float, int]:
    """Mean and greatest number of genes that a step selects in a cell."""
    support = torch.stack([(mask > 0).sum(1) for mask in network.encoder(x_ng, hidden_ng)[2]])
    return float(support.float().mean()), int(support.max())
