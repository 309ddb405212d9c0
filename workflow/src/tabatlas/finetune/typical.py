"""Whether a cell's counts speak for a type that the classifier knows, and how loud.

A classifier always names a type. Here the counts are asked whether they come from a type or from
the ambient soup, the mean of all types: the mean log likelihood ratio of a molecule, over what it
is for a cell made of the type's own profile, for the type that is the likeliest of all. A typical
cell has 1; what tells nothing about its type, as an empty droplet, has 0 or less; noise is far
below.

The ratio is a mean over molecules, so that depth changes its spread and not its level, and both
profiles are restricted to the genes that were measured, so that a missing gene says nothing. The
type is that of the counts and not the classifier's: between near relatives, of which only one was
learned from a study like the query's, the first choice is often the wrong one, and both are known.
But a cell whose counts speak against the type that it is named, as loud as a typical cell's speak
for it, is not typical of anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet.entries import Entries, GeneSets, drop_members
from tabatlas.tabnet.products import multiply_entries
from tabatlas.train.tensors import name_part, pick

PART = "typical"
# Of the expected log ratio of a molecule in nats: less is rounding, and tells nothing.
LEAST_NATS = 1e-6
TINY = torch.finfo(torch.float32).tiny
AGAINST = -1.0  # as loud against a type as a typical cell is for it


@dataclass(frozen=True)
class Typicality:
    """What was learned about the types of a classifier, and the least that it asks of a cell.

    `profile_cg` (c, g) is the composition of each type; `ambient_share` of the molecules of any
    droplet are taken to be ambient; a cell below `min_counts` molecules of the model's genes is
    of low quality, one below `min_typicality` is of an unknown type.
    """

    profile_cg: Tensor
    ambient_share: float
    min_typicality: float
    min_counts: int

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], calibration: Mapping[str, Any]) -> Self:
        """From the tensors of a model and its `calibration.json`."""
        thresholds = {
            key: calibration[key] for key in ("ambient_share", "min_typicality", "min_counts")
        }
        return cls(pick(tensors, PART)["profile_cg"], **thresholds)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a model's weights hold of it."""
        return name_part({"profile_cg": self.profile_cg}, PART)

    @property
    def thresholds(self) -> dict[str, Any]:
        """What `calibration.json` holds of it."""
        return {
            "ambient_share": self.ambient_share,
            "min_typicality": self.min_typicality,
            "min_counts": self.min_counts,
        }

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return replace(self, profile_cg=self.profile_cg.to(device))

    def measure(self, x: Entries, missing: GeneSets, logits_nc: Tensor) -> Tensor:
        """Typicality (n,) of cells for the type under which their counts are the likeliest.

        For the type of the greatest logit where it is below -1 for that one. `x` is log1p(CP10k),
        `missing` the genes that were not measured, as `predict` gives them. A cell without a
        molecule has 0.
        """
        seen = drop_members(x, missing)
        share = scale_entries(seen._replace(value=torch.expm1(seen.value)))
        typicality_n = logits_nc.new_zeros(x.n_rows, dtype=x.value.dtype)
        for number, missing_g in enumerate(missing.member_mg):
            rows = missing.set_n == number
            ratio_cg, expected_c = self.weigh_genes(missing_g)
            found_nc = multiply_entries(share.take(rows), ratio_cg.T.contiguous())
            typical_nc = torch.where(expected_c > LEAST_NATS, found_nc / expected_c, 0.0)
            likeliest_n, named_n = (
                typical_nc.gather(1, score_nc.argmax(dim=1, keepdim=True))[:, 0]
                for score_nc in (found_nc, logits_nc[rows])
            )
            typicality_n[rows] = torch.where(named_n < AGAINST, named_n, likeliest_n)
        return typicality_n

    def weigh_genes(self, missing_g: Tensor) -> tuple[Tensor, Tensor]:
        """Log ratio of each type to the ambient (c, g), 0 where missing; its own mean (c,)."""
        type_cg = scale_rows(self.profile_cg.masked_fill(missing_g, 0))
        ambient_g = scale_rows(self.profile_cg.mean(dim=0).masked_fill(missing_g, 0)[None])
        # Every droplet holds ambient molecules: without them one molecule of a gene that the type
        # does not express would outweigh all others.
        mixed_cg = torch.lerp(type_cg, ambient_g, self.ambient_share)
        ratio_cg = torch.log(mixed_cg / ambient_g).masked_fill(missing_g, 0)
        return ratio_cg, (type_cg * ratio_cg).sum(dim=1)

    def judge(self, typicality_n: np.ndarray, counts_n: np.ndarray) -> np.ndarray:
        """`assigned`, `unknown` or `low_quality` for each cell (n,); see `count_molecules`."""
        status_n = np.where(typicality_n < self.min_typicality, names.UNKNOWN, names.ASSIGNED)
        return np.where(counts_n < self.min_counts, names.LOW_QUALITY, status_n).astype(object)

    def trust(self, probability_n: np.ndarray, typicality_n: np.ndarray) -> np.ndarray:
        """Confidence (n,): the label's calibrated probability, less where a cell is not typical.

        Below `min_typicality` it falls to 0, where the ambient explains the cell as well.
        """
        least = max(self.min_typicality, LEAST_NATS)
        return probability_n * np.clip(typicality_n / least, 0, 1)


def scale_entries(weight: Entries) -> Entries:
    """Rows that sum to 1."""
    row = weight.rows()
    total_n = weight.value.new_zeros(weight.n_rows).index_add(0, row, weight.value)
    return weight._replace(value=weight.value / total_n[row].clamp_min(TINY))


def scale_rows(weight_ng: Tensor) -> Tensor:
    """Rows that sum to 1; a row of zeros stays so."""
    return weight_ng / weight_ng.sum(dim=1, keepdim=True).clamp_min(TINY)


def count_molecules(minibatch: Minibatch) -> Tensor:
    """Molecules of the model's genes in each cell (n,) int64."""
    until = torch.nn.functional.pad(minibatch.count.long().cumsum(dim=0), (1, 0))
    return until[minibatch.indptr.long()].diff()
