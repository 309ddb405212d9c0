"""The encoder: step by step, select genes and turn them into a part of the decision."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.layers import AttentiveTransformer, FeatureTransformer, draw_glu_linears
from tabatlas.tabnet.scaling import build_scaling


class Encoding(NamedTuple):
    """What the steps made of a minibatch."""

    decision_snd: Tensor  # of each step, ≥ 0
    entropy: Tensor  # of a mask in nats, mean over cells and steps: what λ_sparse weighs
    masks_sng: Tensor | None  # only when asked for: s × n × g values

    @property
    def embedding_nd(self) -> Tensor:
        """The sum of the steps' decisions, which every head reads."""
        return self.decision_snd.sum(0)


class Encoder(nn.Module):
    """TabNet's encoder (Arik & Pfister 2021) over genes of which some may be hidden."""

    def __init__(
        self,
        architecture: Architecture,
        mean_g: Tensor,
        sd_g: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Draw the weights on the CPU.

        `mean_g` and `sd_g` are those of log1p(CP10k) over the training cells that measured a gene.
        """
        super().__init__()
        self.architecture = architecture
        n_genes, width = len(mean_g), architecture.n_d + architecture.n_a
        self.scale = build_scaling(architecture, mean_g, sd_g)
        self.token_g = nn.Parameter(torch.zeros(n_genes))
        self.shared = draw_glu_linears(n_genes, width, architecture.n_shared, generator)
        self.splitter = FeatureTransformer(width, architecture, generator)
        steps = range(architecture.n_steps)
        self.attentive = nn.ModuleList(
            AttentiveTransformer(n_genes, architecture, generator) for _ in steps
        )
        self.feature = nn.ModuleList(
            FeatureTransformer(width, architecture, generator) for _ in steps
        )

    def forward(
        self, x_ng: Tensor, hidden_ng: Tensor | None = None, return_masks: bool = False
    ) -> Encoding:
        """Encode log1p(CP10k).

        `hidden_ng` is True where a gene was hidden by pretraining or was not measured: its value
        has no influence and its mask is exactly 0. Without it every gene is seen.
        """
        hidden_ng = torch.zeros_like(x_ng) if hidden_ng is None else hidden_ng.to(x_ng.dtype)
        barrier_ng = torch.log1p(-hidden_ng)  # 0, or -inf where hidden
        # A token, because 0 in place of a hidden gene would say "expressed as on average".
        input_ng = torch.lerp(self.scale(x_ng, hidden_ng), self.token_g, hidden_ng)
        prior_ng = torch.ones_like(input_ng)
        _, attention_na = self.split(self.splitter(input_ng, self.shared))
        decisions, entropies, masks = [], [], []
        for attend, transform in zip(self.attentive, self.feature, strict=True):
            mask_ng = attend(attention_na, prior_ng, barrier_ng)
            prior_ng = prior_ng * (self.architecture.gamma - mask_ng)
            decision_nd, attention_na = self.split(transform(mask_ng * input_ng, self.shared))
            decisions.append(F.relu(decision_nd))
            entropies.append(measure_entropy(mask_ng))
            if return_masks:
                masks.append(mask_ng)
        entropy = torch.stack(entropies).mean()
        return Encoding(torch.stack(decisions), entropy, torch.stack(masks) if masks else None)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the decision, and what the next step attends with."""
        return features.split([self.architecture.n_d, self.architecture.n_a], dim=-1)


def measure_entropy(mask_ng: Tensor) -> Tensor:
    """Mean over cells of -Σ M log M in nats; a gene with M = 0 adds 0 and has a finite gradient."""
    tiny = torch.finfo(mask_ng.dtype).tiny
    return -(mask_ng * (mask_ng + tiny).log()).sum(-1).mean()
