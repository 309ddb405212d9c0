"""Which numbers autocast may not touch.

Mask logits, statistics, projections and losses are float32 even under bfloat16 autocast: selection
is discontinuous, and rounded logits select other genes. For the same reason whoever trains on a
GPU leaves `torch.get_float32_matmul_precision()` at "highest" (TF32 off).
"""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
