"""The two kinds of block that a step consists of: feature and attentive transformer.

Weights are drawn normal with variance 1 / inputs (LeCun et al. 1998). pytorch-tabnet's are
√2·inputs^(1/4) times as large, nine times at 2,000 genes; normalization hides their size from the
output, but not from Adam, whose steps are then that much smaller beside them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.normalization import GhostBatchNorm
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.tabnet.projections import PROJECTIONS

# Every gene is selected nearly alike at first, and the network can learn from the first step on.
# With a gain of 1 each cell starts with a few genes chosen at random (see the log).
FLAT_GAIN = 0.01
# √½ keeps the variance of a sum of two where it was (Arik & Pfister 2021; Gehring et al. 2017).
RESIDUAL_SCALE = math.sqrt(0.5)


class FeatureTransformer(nn.Module):
    """GLU layers shared by all steps, then layers of one step; normalization is never shared."""

    def __init__(self, width: int, architecture: Architecture, generator: torch.Generator) -> None:
        super().__init__()
        n_own = architecture.n_independent
        self.independent = draw_glu_linears(width, width, n_own, generator)
        self.norms = nn.ModuleList(
            build_norm(2 * width, architecture) for _ in range(architecture.n_shared + n_own)
        )

    def forward(self, x: Tensor, shared: nn.ModuleList) -> Tensor:
        """Features [n, width] of x [n, inputs of the first shared layer]."""
        return self.finish(shared[0](x), shared)

    def finish(self, mapped: Tensor, shared: nn.ModuleList) -> Tensor:
        """Features [n, width] of what the first shared linear map gave [n, 2 width]."""
        features = F.glu(self.norms[0](mapped))
        for linear, norm in zip([*shared[1:], *self.independent], self.norms[1:], strict=True):
            features = (features + F.glu(norm(linear(features)))) * RESIDUAL_SCALE
        return features


class AttentiveTransformer(nn.Module):
    """Selects genes: by the attention of the step before, and by what may still be selected."""

    def __init__(
        self, n_genes: int, architecture: Architecture, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.linear = draw_linear(architecture.n_a, n_genes, generator)
        self.norm = build_norm(n_genes, architecture)
        nn.init.constant_(self.norm.weight, FLAT_GAIN)
        self.project = PROJECTIONS[architecture.mask_type]

    def forward(self, attention_na: Tensor, prior_ng: Tensor, barrier_ng: Tensor) -> Tensor:
        """Mask [n, g] whose rows sum to 1; `barrier_ng` is 0, or -inf where a gene is hidden."""
        # Selection is discontinuous: logits in bfloat16 would select other genes.
        with torch.autocast(attention_na.device.type, enabled=False):
            logits_ng = self.norm(self.linear(at_least_float32(attention_na)))
            return self.project(torch.addcmul(barrier_ng, prior_ng, logits_ng))


class Linear(nn.Linear):
    """A linear map whose weights are still to be drawn.

    torch's own would come from the global generator; its `skip_init` imports its compiler first.
    """

    def reset_parameters(self) -> None:
        """Leave the weights to others."""


def build_norm(n_features: int, architecture: Architecture) -> GhostBatchNorm:
    """Ghost batch normalization as the architecture asks for it."""
    return GhostBatchNorm(n_features, architecture.virtual_batch_size, architecture.momentum)


def draw_glu_linears(
    n_inputs: int, width: int, n_layers: int, generator: torch.Generator
) -> nn.ModuleList:
    """The linear maps of consecutive GLU layers: the first from `n_inputs`, the rest from width."""
    sizes = [n_inputs, *[width] * (n_layers - 1)][:n_layers]
    return nn.ModuleList(draw_linear(size, 2 * width, generator) for size in sizes)


def draw_linear(n_inputs: int, n_outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map without bias, its weights normal with variance 1 / inputs."""
    linear = Linear(n_inputs, n_outputs, bias=False)
    nn.init.normal_(linear.weight, std=n_inputs**-0.5, generator=generator)
    return linear


def lay_by_input(linear: nn.Linear) -> None:
    """Put the weights of an input (outputs,) side by side in memory; shape and values stay."""
    linear.weight.data = linear.weight.data.t().contiguous().t()
