"""What a cell's masks say about its genes, each step's share and all steps' sum. Rows sum to 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tabatlas.tabnet.entries import Entries, look_up, unite


def weigh_masks(masks: Sequence[Entries], decision_snd: Tensor) -> Entries:
    """Importance with each step weighted by its decision (Arik & Pfister 2021, M_agg).

    A cell whose decisions are all 0 has no important genes: its row is 0.
    """
    return sum_steps(weigh_steps(masks, decision_snd))


def average_masks(masks: Sequence[Entries]) -> Entries:
    """Importance with all steps equal: what was looked at, whether or not it counted."""
    return sum_steps(share_masks(masks))


def weigh_steps(masks: Sequence[Entries], decision_snd: Tensor) -> list[Entries]:
    """What each step adds to the weighted importance."""
    decision_sn = decision_snd.sum(-1)
    tiny = torch.finfo(decision_sn.dtype).tiny
    # A mask sums to 1, so that the decisions alone make a cell's importances do so.
    share_sn = decision_sn / decision_sn.sum(0).clamp_min(tiny)
    return [
        mask._replace(value=mask.value * share_n[mask.rows()])
        for mask, share_n in zip(masks, share_sn, strict=True)
    ]


def share_masks(masks: Sequence[Entries]) -> list[Entries]:
    """What each step adds to the importance with all steps equal."""
    return [mask._replace(value=mask.value / len(masks)) for mask in masks]


def sum_steps(parts: Sequence[Entries]) -> Entries:
    """The sum of what all steps add, an entry for each gene that has one in any step."""
    indptr, gene = unite(parts)
    return Entries(indptr, gene, sum(look_up(part, indptr, gene) for part in parts))
