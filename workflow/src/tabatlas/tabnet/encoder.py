"""The encoder: step by step, select genes and turn them into a part of the decision."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.covariates import (
    CONDITION,
    INPUT,
    UNKNOWN_LEVEL,
    Covariate,
    CovariateColumns,
    Covariates,
    append_columns,
)
from tabatlas.tabnet.entries import Entries
from tabatlas.tabnet.groups import MaskGroups
from tabatlas.tabnet.layers import (
    AttentiveTransformer,
    FeatureTransformer,
    draw_glu_linears,
    lay_by_input,
)
from tabatlas.tabnet.scaling import build_scaling


class Encoding(NamedTuple):
    """What the steps made of a minibatch."""

    decision_snd: Tensor  # of each step, ≥ 0
    entropy: Tensor  # of a mask in nats, mean over cells and steps: what λ_sparse weighs
    # Over genes, or groups of them, and then the covariates that are inputs (see `MaskGroups`). The
    # dense form keeps s × n × g values, and only when asked for; the sparse form what is selected.
    masks_sng: Tensor | None = None
    masks: tuple[Entries, ...] = ()

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
        covariates: Sequence[Covariate] = (),
        groups: Sequence[Sequence[int]] = (),
    ) -> None:
        """Draw the weights on the CPU.

        `mean_g` and `sd_g` are those of log1p(CP10k) over the training cells that measured a gene.
        The genes of a group, given by their numbers, are selected together (see `MaskGroups`).
        """
        super().__init__()
        self.architecture, self.covariates = architecture, tuple(covariates)
        self.inputs = CovariateColumns(covariates, INPUT, generator)
        self.conditions = CovariateColumns(covariates, CONDITION, generator)
        n_genes, width = len(mean_g), architecture.n_d + architecture.n_a
        self.groups = MaskGroups(n_genes, groups, self.inputs.widths)
        n_columns = len(self.inputs)
        # Covariates come standardized; a batch normalization takes them as it takes genes.
        statistics = (F.pad(mean_g, (0, n_columns)), F.pad(sd_g, (0, n_columns), value=1.0))
        self.scale = build_scaling(architecture, *statistics)
        self.token_g = nn.Parameter(torch.zeros(n_genes))
        n_inputs = n_genes + n_columns + len(self.conditions)
        self.shared = draw_glu_linears(n_inputs, width, architecture.n_shared, generator)
        # The sparse form reads and writes the weights of one gene at a time.
        lay_by_input(self.shared[0])
        self.splitter = FeatureTransformer(width, architecture, generator)
        steps = range(architecture.n_steps)
        self.attentive = nn.ModuleList(
            AttentiveTransformer(len(self.groups), architecture, generator) for _ in steps
        )
        self.feature = nn.ModuleList(
            FeatureTransformer(width, architecture, generator) for _ in steps
        )

    def forward(
        self,
        x_ng: Tensor,
        hidden_ng: Tensor | None = None,
        covariates: Covariates | None = None,
        return_masks: bool = False,
    ) -> Encoding:
        """Encode log1p(CP10k).

        `hidden_ng` is True where a gene was hidden by pretraining or was not measured: its value
        has no influence and its mask is exactly 0. Without it every gene is seen; without
        `covariates` nothing is known of them.
        """
        hidden_ng = torch.zeros_like(x_ng) if hidden_ng is None else hidden_ng.to(x_ng.dtype)
        covariates = self.know_nothing(x_ng) if covariates is None else covariates
        condition_nc, columns_nc = self.conditions(covariates), self.inputs(covariates)
        # Covariates can always be selected.
        hidden_nf = append_columns(hidden_ng, torch.zeros_like(columns_nc))
        input_nf = self.open_input(append_columns(x_ng, columns_nc), hidden_nf)
        barrier_nq = torch.log1p(-self.groups.hide(hidden_nf))  # 0, or -inf where hidden
        prior_nq = torch.ones_like(barrier_nq)
        whole = append_columns(input_nf, condition_nc)
        _, attention_na = self.split(self.splitter(whole, self.shared))
        decisions, entropies, masks = [], [], []
        for attend, transform in zip(self.attentive, self.feature, strict=True):
            mask_nq = attend(attention_na, prior_nq, barrier_nq)
            prior_nq = prior_nq * (self.architecture.gamma - mask_nq)
            selected_nf = self.groups.spread(mask_nq, hidden_nf) * input_nf
            selected = append_columns(selected_nf, condition_nc)
            decision_nd, attention_na = self.split(transform(selected, self.shared))
            decisions.append(F.relu(decision_nd))
            entropies.append(measure_entropy(mask_nq))
            if return_masks:
                masks.append(mask_nq)
        entropy = torch.stack(entropies).mean()
        return Encoding(torch.stack(decisions), entropy, torch.stack(masks) if masks else None)

    def open_input(self, x_nf: Tensor, hidden_nf: Tensor) -> Tensor:
        """x̂: scaled genes, or their token where hidden, and the covariates that are inputs."""
        # A token, because 0 in place of a hidden gene would say "expressed as on average".
        return torch.lerp(self.scale(x_nf, hidden_nf), self.list_tokens(), hidden_nf)

    def list_tokens(self) -> Tensor:
        """Tokens of genes, and zeros for the covariates' columns, which are never hidden (f,)."""
        return F.pad(self.token_g, (0, len(self.inputs)))

    def know_nothing(self, x_ng: Tensor) -> Covariates:
        """Unknown levels and numbers for the cells of `x_ng`."""
        n_numbers = sum(not one.levels for one in self.covariates)
        shape = (len(x_ng), len(self.covariates) - n_numbers)
        level_nk = x_ng.new_full(shape, UNKNOWN_LEVEL, dtype=torch.int64)
        return Covariates(level_nk, x_ng.new_full((len(x_ng), n_numbers), torch.nan))

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the decision, and what the next step attends with."""
        return features.split([self.architecture.n_d, self.architecture.n_a], dim=-1)


def measure_entropy(mask_ng: Tensor) -> Tensor:
    """Mean over cells of -Σ M log M in nats; a gene with M = 0 adds 0 and has a finite gradient."""
    tiny = torch.finfo(mask_ng.dtype).tiny
    return -(mask_ng * (mask_ng + tiny).log()).sum(-1).mean()
