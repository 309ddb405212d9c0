"""What a cell's masks say about its genes, over all steps. Rows sum to 1."""

import torch
from torch import Tensor


def weigh_masks(masks_sng: Tensor, decision_snd: Tensor) -> Tensor:
    """Importance [n, g] with each step weighted by its decision (Arik & Pfister 2021, M_agg).

    A cell whose decisions are all 0 has no important genes: its row is 0.
    """
    return weigh_steps(masks_sng, decision_snd).sum(0)


def weigh_steps(masks_sng: Tensor, decision_snd: Tensor) -> Tensor:
    """What each step adds to the weighted importance [s, n, g]."""
    weighted_sng = masks_sng * decision_snd.sum(-1, keepdim=True)
    tiny = torch.finfo(weighted_sng.dtype).tiny
    return weighted_sng / weighted_sng.sum((0, 2), keepdim=True).clamp_min(tiny)


def average_masks(masks_sng: Tensor) -> Tensor:
    """Importance [n, g] with all steps equal: what was looked at, whether or not it counted."""
    return masks_sng.mean(0)
