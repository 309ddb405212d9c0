"""From minibatches to what a network takes, hidden genes, and the one inference loop."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet.covariates import UNKNOWN_LEVEL, Covariates
from tabatlas.tabnet.entries import Entries, GeneSets

# A tensor with one row per cell, or several of them.
Output = TypeVar("Output")

# Cells of a minibatch that hide the same genes, at most. Smaller groups learn no better, one set
# for all of a minibatch's cells learns worse (see the log).
GROUP = 32


def open_inputs(minibatch: Minibatch, presence_mg: Tensor) -> tuple[Entries, GeneSets, Covariates]:
    """log1p(CP10k), which genes are missing, and the covariates, all on one device.

    `presence_mg` (datasets, g) says which genes each dataset measured: a gene that was not
    measured is not a zero.
    """
    x = Entries(minibatch.indptr, minibatch.gene, minibatch.normalize())
    # A GPU would have to wait for the answer.
    assert x.gene.is_cuda or x.is_sorted(), "genes of a cell are not in order"
    missing = GeneSets(minibatch.dataset, ~presence_mg).compact()
    return x, missing, Covariates(minibatch.level, minibatch.number)


def draw_hidden(
    missing: GeneSets, ratio: float, generator: torch.Generator
) -> tuple[GeneSets, GeneSets]:
    """Hide genes by coin flips, the same for a group of cells: all hidden genes, and the drawn.

    What is missing is hidden too, and never drawn. One gene at least stays visible.
    """
    n_sets, n_genes = missing.member_mg.shape
    # Groups of mixed datasets would make a set for each dataset of each: nearly one per cell.
    order_n = missing.set_n.argsort(stable=True)
    group_n = order_n.argsort() // GROUP
    n_groups = -(-len(group_n) // GROUP)
    coin_kg = torch.rand(n_groups, n_genes, generator=generator, device=group_n.device)
    pair_p, set_n = torch.unique(group_n * n_sets + missing.set_n, return_inverse=True)
    missing_pg = missing.member_mg[pair_p % n_sets]
    drawn_pg = (coin_kg < ratio)[pair_p // n_sets] & ~missing_pg
    drawn_pg &= (~(drawn_pg | missing_pg)).any(dim=1, keepdim=True)
    return GeneSets(set_n, drawn_pg | missing_pg), GeneSets(set_n, drawn_pg)


def forget_levels(covariates: Covariates, ratio: float, generator: torch.Generator) -> Covariates:
    """Make levels unknown by coin flips, so that the network can do without those it never saw."""
    level_nk = covariates.level_nk
    if not level_nk.numel():
        return covariates
    coin_nk = torch.rand(level_nk.shape, generator=generator, device=level_nk.device)
    return covariates._replace(level_nk=level_nk.masked_fill(coin_nk < ratio, UNKNOWN_LEVEL))


@torch.inference_mode()
def predict(
    forward: Callable[[Entries, GeneSets, Covariates], Output],
    minibatches: Iterable[Minibatch],
    presence_mg: Tensor,
) -> Iterator[tuple[Minibatch, Output]]:
    """Each minibatch, on the device of `presence_mg`, with `forward` of its inputs."""
    for minibatch in minibatches:
        moved = minibatch.to(presence_mg.device)
        yield moved, forward(*open_inputs(moved, presence_mg))
