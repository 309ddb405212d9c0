"""Whether a cell's counts speak for the type that the classifier names, and how loud.

A classifier always names a type. Here the counts are asked whether they come from that type or from
the ambient soup, the mean of all types: the mean log likelihood ratio of a molecule, over what it
is for a cell made of the type's own profile. A typical cell has 1; what tells nothing about its
type, as an empty droplet, has 0 or less; noise is far below.

The ratio is a mean over molecules, so that depth changes its spread and not its level, and both
profiles are restricted to the genes that were measured, so that a missing gene says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.stream.minibatch import Minibatch
from tabatlas.train.checkpoint import name_part, pick

PART = "typical"
# Of the expected log ratio of a molecule in nats: less is rounding, and tells nothing.
LEAST_NATS = 1e-6


@dataclass(frozen=True)
class Typicality:
    """What a classifier learned about its own types, and the least that it asks of a cell.

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

    def measure(self, x_ng: Tensor, missing_ng: Tensor, logits_nc: Tensor) -> Tensor:
        """Typicality (n,) of cells for the type of their greatest logit.

        `x_ng` is log1p(CP10k), `missing_ng` True where a gene was not measured, as `predict` gives
        them. A cell without a molecule has 0.
        """
        seen_ng = (~missing_ng).to(self.profile_cg.dtype)
        share_ng = scale_rows(torch.expm1(x_ng) * seen_ng)
        type_ng = scale_rows(self.profile_cg[logits_nc.argmax(dim=1)] * seen_ng)
        ambient_ng = scale_rows(self.profile_cg.mean(dim=0) * seen_ng)
        # Every droplet holds ambient molecules: without them one molecule of a gene that the type
        # does not express would outweigh all others.
        mixed_ng = torch.lerp(type_ng, ambient_ng, self.ambient_share)
        ratio_ng = torch.where(missing_ng, 0.0, torch.log(mixed_ng / ambient_ng))
        expected_n = (type_ng * ratio_ng).sum(dim=1)
        found_n = (share_ng * ratio_ng).sum(dim=1)
        return torch.where(expected_n > LEAST_NATS, found_n / expected_n, 0.0)

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


def scale_rows(weight_ng: Tensor) -> Tensor:
    """Rows that sum to 1; a row of zeros stays so."""
    return weight_ng / weight_ng.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def count_molecules(minibatch: Minibatch) -> Tensor:
    """Molecules of the model's genes in each cell (n,) int64."""
    until = torch.nn.functional.pad(minibatch.count.long().cumsum(dim=0), (1, 0))
    return until[minibatch.indptr.long()].diff()
