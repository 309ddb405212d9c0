"""What is known of a cell beside its genes: assay, donor, disease, quality.

Categorical covariates enter through embeddings, numerical ones standardized. A covariate is an
*input*, which a step's mask selects like a gene, or a *condition*, which every step sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

INPUT, CONDITION = "input", "condition"
UNKNOWN_LEVEL = 0


@dataclass(frozen=True)
class Covariate:
    """One column. It is categorical where it has `levels`; their numbers begin at 1.

    0 is the level of whatever is none of them. `width` is that of the embedding; `mean` and
    `deviation` are a numerical column's over the training cells.
    """

    name: str
    role: Literal["input", "condition"]
    levels: tuple[str, ...] = ()
    width: int = 1
    mean: float = 0.0
    deviation: float = 1.0


class Covariates(NamedTuple):
    """Covariates of n cells, each kind in the order of the network's own list."""

    level_nk: Tensor  # int64, 0 where unknown
    number_nj: Tensor  # NaN where unknown


class CovariateColumns(nn.Module):
    """The covariates of one role as columns: the numerical ones, then the embeddings.

    `widths` are the columns of each covariate, in this order.
    """

    def __init__(
        self, covariates: Sequence[Covariate], role: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        own_k, categorical = choose_role([one for one in covariates if one.levels], role)
        own_j, numerical = choose_role([one for one in covariates if not one.levels], role)
        sizes = torch.tensor([len(one.levels) + 1 for one in categorical], dtype=torch.int64)
        self.widths = [1] * len(numerical) + [one.width for one in categorical]
        widest = max([one.width for one in categorical], default=0)
        # All tables in one, each row as wide as the widest: one lookup serves all of them.
        self.table = draw_embedding(int(sizes.sum()), widest, generator) if categorical else None
        width_k = torch.tensor(self.widths[len(numerical) :], dtype=torch.int64)
        kept = (torch.arange(widest) < width_k[:, None]).flatten().nonzero().squeeze(1)
        buffers = {
            "own_k": own_k,
            "own_j": own_j,
            "first_k": sizes.cumsum(0) - sizes,
            "kept": kept,
            "mean_j": torch.tensor([one.mean for one in numerical]),
            "deviation_j": torch.tensor([one.deviation for one in numerical]),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)

    @property
    def n_covariates(self) -> int:
        """Number of covariates of the role."""
        return len(self.widths)

    def __len__(self) -> int:
        """Number of columns."""
        return sum(self.widths)

    def forward(self, covariates: Covariates) -> Tensor:
        """Columns (n, columns); an unknown number stands at its mean."""
        number_nj = (covariates.number_nj[:, self.own_j] - self.mean_j) / self.deviation_j
        columns_nc = number_nj.nan_to_num(0)
        if self.table is None:
            return columns_nc
        embedded = self.table(covariates.level_nk[:, self.own_k] + self.first_k)
        return append_columns(columns_nc, embedded.flatten(1)[:, self.kept])


def append_columns(x_ng: Tensor, columns_nc: Tensor) -> Tensor:
    """Columns after the genes; without any the genes themselves and no copy."""
    return torch.cat([x_ng, columns_nc], dim=1) if columns_nc.shape[1] else x_ng


def draw_embedding(n_rows: int, width: int, generator: torch.Generator) -> nn.Embedding:
    """A table of embeddings, its values standard normal."""
    weight = torch.empty(n_rows, width).normal_(generator=generator)
    return nn.Embedding.from_pretrained(weight, freeze=False)


def choose_role(covariates: Sequence[Covariate], role: str) -> tuple[Tensor, list[Covariate]]:
    """Those of one role, and their places among all of their kind."""
    places = [place for place, one in enumerate(covariates) if one.role == role]
    return torch.tensor(places, dtype=torch.int64), [covariates[place] for place in places]
