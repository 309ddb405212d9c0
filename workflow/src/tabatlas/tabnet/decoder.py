"""The decoder of pretraining: from the steps' decisions back to every gene."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.layers import FeatureTransformer, Linear, draw_glu_linears
from tabatlas.tabnet.scaling import Standardizer


class Decoder(nn.Module):
    """TabNet's decoder (Arik & Pfister 2021): a feature transformer per step, summed, then genes.

    It predicts standardized values, (x - mean) / max(sd, floor), in which 0 is the gene's mean and
    every gene counts alike. Untrained it predicts just that: random output weights would have to be
    unlearned first.
    """

    def __init__(
        self,
        architecture: Architecture,
        mean_g: Tensor,
        sd_g: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Draw the weights on the CPU; `mean_g` and `sd_g` as for the encoder."""
        super().__init__()
        # One shared and one own layer, as in pytorch-tabnet: the paper leaves the number open.
        shallow = replace(architecture, n_shared=1, n_independent=1)
        width = architecture.n_d
        self.standardize = Standardizer(mean_g, sd_g, architecture.scale_floor)
        self.shared = draw_glu_linears(width, width, shallow.n_shared, generator)
        self.feature = nn.ModuleList(
            FeatureTransformer(width, shallow, generator) for _ in range(architecture.n_steps)
        )
        self.genes = Linear(width, len(mean_g))
        nn.init.zeros_(self.genes.weight)
        nn.init.zeros_(self.genes.bias)

    def forward(self, decision_snd: Tensor) -> Tensor:
        """Standardized values [n, g] of every gene, hidden or not."""
        return self.genes(self.transform(decision_snd))

    def transform(self, decision_snd: Tensor) -> Tensor:
        """Features [n, n_d] of which every gene's value is a linear map."""
        steps = zip(self.feature, decision_snd, strict=True)
        return sum(transform(decision, self.shared) for transform, decision in steps)
