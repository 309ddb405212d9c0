"""The networks of tabnet.py side by side, with the same weights, and their steps."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tabnet_yardstick as yardstick
import torch
import torch.nn.functional as F
from pytorch_tabnet.tab_network import TabNetNoEmbeddings
from tabnet_cells import N_CLASSES, Cells
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.reconstruction import sum_errors
from tabatlas.tabnet.sparse import encode
from tabatlas.train.predict import draw_hidden

sys.path.insert(0, str(Path(__file__).parents[1] / "tabnet"))

from test_peer_parity import copy_pairs, pair_encoders

LAMBDA_SPARSE = 1e-3

# Logits [n, c] and the masks' entropy of a network on cells.
Run = Callable[[Any, Cells], tuple[Tensor, Tensor]]


class Pair(NamedTuple):
    """The same network as the yardstick has it and as the package has it."""

    theirs: nn.Module
    ours: nn.Module

    def train(self, training: bool = True) -> "Pair":
        """Both to training mode, or to evaluation."""
        self.theirs.train(training), self.ours.train(training)
        return self

    def copy_weights(self) -> None:
        """Give the yardstick's weights and statistics to ours."""
        self.ours.load_state_dict(self.theirs.state_dict())


def build_classifiers(architecture: Architecture, cells: Cells) -> Pair:
    """Two classifiers of the same random weights."""
    ours = build_ours(architecture, cells)
    shape = yardstick.Shape.of(architecture)
    theirs = yardstick.Classifier(shape, cells.mean_g, cells.sd_g, N_CLASSES)
    theirs.load_state_dict(ours.state_dict())
    return Pair(theirs, ours)


def build_ours(architecture: Architecture, cells: Cells) -> Classifier:
    """The package's classifier of random weights."""
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(architecture, cells.mean_g, cells.sd_g, generator)
    return Classifier(encoder, N_CLASSES, generator)


def build_pretrainers(architecture: Architecture, cells: Cells) -> Pair:
    """Two encoders with decoders of the same random weights."""
    generator = torch.Generator().manual_seed(0)
    statistics = (cells.mean_g, cells.sd_g, generator)
    parts = {"encoder": Encoder(architecture, *statistics)}
    ours = nn.ModuleDict(parts | {"decoder": Decoder(architecture, *statistics)})
    # Drawn as zeros, with which the encoder would have no gradient.
    genes = ours["decoder"].genes.weight
    nn.init.normal_(genes, std=genes.shape[1] ** -0.5, generator=generator)
    theirs = yardstick.Pretrainer(yardstick.Shape.of(architecture), cells.mean_g, cells.sd_g)
    theirs.load_state_dict(ours.state_dict())
    return Pair(theirs, ours)


def build_peers(architecture: Architecture, cells: Cells) -> Pair:
    """pytorch-tabnet's network, as its `fit` makes it, and ours with its weights."""
    torch.manual_seed(0)  # the peer draws from nowhere else
    names = ("n_d", "n_a", "n_steps", "gamma", "n_independent", "n_shared")
    names += ("virtual_batch_size", "momentum", "mask_type")
    knobs = {name: getattr(architecture, name) for name in names}
    n_genes = len(cells.mean_g)
    theirs = TabNetNoEmbeddings(
        n_genes, N_CLASSES, **knobs, group_attention_matrix=torch.eye(n_genes)
    )
    ours = build_ours(architecture, cells)
    copy_pairs(pair_encoders(theirs.encoder, ours.encoder))
    ours.head.weight.data.copy_(theirs.final_mapping.weight)
    return Pair(theirs, ours)


def list_entries(cells: Cells) -> Entries:
    """The cells as our sparse form takes them."""
    return Entries(cells.indptr, cells.gene, cells.value)


def run_dense(network: nn.Module, cells: Cells) -> tuple[Tensor, Tensor]:
    """Logits and entropy of the yardstick, which densifies the cells."""
    return network(cells.dense())


def run_sparse(network: Classifier, cells: Cells) -> tuple[Tensor, Tensor]:
    """Our logits and entropy."""
    logits_nc, encoding = network.classify(list_entries(cells))
    return logits_nc, encoding.entropy


def run_peer(network: TabNetNoEmbeddings, cells: Cells) -> tuple[Tensor, Tensor]:
    """Logits and entropy of pytorch-tabnet, which returns the entropy's negative."""
    logits_nc, negative = network(cells.dense())
    return logits_nc, -negative


def make_step(network: nn.Module, run: Run, cells: Cells) -> Callable[[], None]:
    """A whole training step of a classifier."""

    def compute() -> Tensor:
        logits_nc, entropy = run(network, cells)
        return F.cross_entropy(logits_nc.float(), cells.label_n) + LAMBDA_SPARSE * entropy

    return optimize(network, compute)


def draw_sets(cells: Cells, generator: torch.Generator) -> GeneSets:
    """Half of the genes, as the package draws them when all are measured."""
    set_n = torch.zeros_like(cells.label_n)
    missing = GeneSets(set_n, torch.zeros(1, len(cells.mean_g), dtype=torch.bool))
    return draw_hidden(missing, 0.5, generator)[1]


def dense_masked_loss(network: nn.Module, cells: Cells, hidden_ng: Tensor) -> Tensor:
    """The yardstick's loss of pretraining."""
    error, entropy = network(cells.dense(), hidden_ng)
    return error + LAMBDA_SPARSE * entropy


def sparse_masked_loss(network: nn.ModuleDict, cells: Cells, hidden: GeneSets) -> Tensor:
    """Our loss of pretraining."""
    x = list_entries(cells)
    encoding = encode(network["encoder"], x, hidden)
    errors = sum_errors(network["decoder"], encoding.decision_snd, x, hidden)
    return errors / hidden.count() + LAMBDA_SPARSE * encoding.entropy


def optimize(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Loss, backward and AdamW.

    The learning rate is 0, so that the masks stay as wide as they were made; the arithmetic of
    AdamW is the same.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


@torch.no_grad()
def check_same(theirs: Tensor, ours: Tensor, tolerance: float) -> None:
    """Both computed the same, or there is nothing to compare."""
    error = ((theirs - ours).abs().max() / theirs.abs().max()).item()
    if not error <= tolerance:
        raise AssertionError(f"the networks differ by {error:.1e} of {tolerance:.0e}")
