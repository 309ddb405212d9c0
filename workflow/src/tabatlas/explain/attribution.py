"""What several classifiers' masks say about the same cells, summed up minibatch by minibatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.importance import weigh_steps

AGGREGATIONS = ("weighted", "plain")


class Attribution(NamedTuple):
    """Of n cells and k classifiers: their answers, their masks, and each step's share (s).

    Summed over its steps, `weighted_ksng` is `weigh_masks` and `plain_ksng` is `average_masks`.
    """

    x_ng: Tensor
    missing_ng: Tensor
    predicted_kn: Tensor
    masks_ksng: Tensor
    weighted_ksng: Tensor

    @property
    def plain_ksng(self) -> Tensor:
        """All steps alike."""
        return self.masks_ksng / self.masks_ksng.shape[1]


class Attributor:
    """Runs all classifiers on a minibatch; the first one is the one that is explained."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = classifiers

    def __call__(self, x_ng: Tensor, missing_ng: Tensor, covariates: Covariates) -> Attribution:
        """Answers and masks of every classifier."""
        found = [model(x_ng, missing_ng, covariates, True) for model in self.classifiers]
        encodings = [encoding for _, encoding in found]
        weighted = [weigh_steps(one.masks_sng, one.decision_snd) for one in encodings]
        n_genes = x_ng.shape[1]  # covariates that are inputs have masks after those of the genes
        return Attribution(
            x_ng,
            missing_ng,
            torch.stack([logits_nc.argmax(dim=1) for logits_nc, _ in found]),
            torch.stack([one.masks_sng[..., :n_genes] for one in encodings]),
            torch.stack(weighted)[..., :n_genes],
        )


def list_masks(joinid_n: np.ndarray, masks_sng: Tensor) -> pd.DataFrame:
    """The selected genes of every cell and step, steps counted from 1; exact zeros are left out."""
    masks_nsg = masks_sng.transpose(0, 1).cpu().numpy()
    cell, step, gene = masks_nsg.nonzero()
    return pd.DataFrame(
        {
            names.JOINID: joinid_n[cell],
            "step": (step + 1).astype(np.int8),
            "gene": gene.astype(np.int32),
            "mask": masks_nsg[cell, step, gene],
        }
    )


def list_importances(joinid_n: np.ndarray, weighted_ng: Tensor, plain_ng: Tensor) -> pd.DataFrame:
    """Both importances of every gene that a cell selected in any step."""
    weighted, plain = weighted_ng.cpu().numpy(), plain_ng.cpu().numpy()
    cell, gene = plain.nonzero()
    return pd.DataFrame(
        {
            names.JOINID: joinid_n[cell],
            "gene": gene.astype(np.int32),
            "weighted": weighted[cell, gene],
            "plain": plain[cell, gene],
        }
    )


@dataclass(frozen=True)
class TypeMeans:
    """Per type c, over its cells: importances, and the expression of genes, where measured.

    Importances (k classifiers, c, s, g) are means over the cells that all classifiers name rightly
    (`n_cells_c`), expression over all sampled cells (`n_sampled_c`). A gene that no cell measured
    has 0 in `measured_cg`. `selected_s` and `expressed_s` count genes per cell and step, the last
    entry over all steps.
    """

    n_sampled_c: np.ndarray
    n_cells_c: np.ndarray
    measured_cg: np.ndarray
    expression_cg: np.ndarray
    importance: dict[str, np.ndarray]
    accuracy_k: np.ndarray
    selected_s: np.ndarray
    expressed_s: np.ndarray

    def sum_steps(self, aggregation: str) -> np.ndarray:
        """Importance of every gene over all steps (k, c, g)."""
        return self.importance[aggregation].sum(axis=2)


class TypeSums:
    """Grows by minibatches into `TypeMeans`; never holds more masks than one minibatch's.

    The type is the label, of cells that every classifier names rightly: the mask of a wrong answer
    explains the wrong type, and equal cells make the classifiers comparable.
    """

    def __init__(self, n_classifiers: int, n_classes: int, n_steps: int, n_genes: int) -> None:
        shape = (n_classifiers, n_classes, n_steps, n_genes)
        self.sums = {name: np.zeros(shape) for name in AGGREGATIONS}
        self.seen_cg, self.measured_cg, self.expression_cg = np.zeros((3, n_classes, n_genes))
        self.n_sampled_c, self.n_cells_c = np.zeros((2, n_classes), dtype=np.int64)
        self.right_k = np.zeros(n_classifiers)
        self.selected_s, self.expressed_s = np.zeros((2, n_steps + 1))

    def add(self, label_n: Tensor, found: Attribution) -> None:
        """Add a minibatch."""
        right_kn = found.predicted_kn == label_n
        agreed_n = right_kn.all(dim=0)
        self.right_k += right_kn.sum(dim=1).cpu().numpy()
        measured_ng = ~found.missing_ng
        for one in label_n.unique().tolist():
            own_n = label_n == one
            self.n_sampled_c[one] += int(own_n.sum())
            self.seen_cg[one] += sum_cells(measured_ng[own_n])
            self.expression_cg[one] += sum_cells(found.x_ng[own_n])
            own_n = own_n & agreed_n
            self.n_cells_c[one] += int(own_n.sum())
            self.measured_cg[one] += sum_cells(measured_ng[own_n])
            self.sums["weighted"][:, one] += sum_cells(found.weighted_ksng[:, :, own_n])
            self.sums["plain"][:, one] += sum_cells(found.plain_ksng[:, :, own_n])
        self.count_selected(found.masks_ksng[0] > 0, found.x_ng > 0)

    def count_selected(self, selected_sng: Tensor, expressed_ng: Tensor) -> None:
        """Count the genes that the first classifier selects, in each step and in any."""
        whole_sng = torch.cat([selected_sng, selected_sng.any(dim=0, keepdim=True)])
        self.selected_s += whole_sng.sum(dim=(1, 2)).cpu().numpy()
        self.expressed_s += (whole_sng & expressed_ng).sum(dim=(1, 2)).cpu().numpy()

    def average(self) -> TypeMeans:
        """Means over the cells that measured a gene: an unmeasured gene is not a zero."""
        n_cells = max(int(self.n_sampled_c.sum()), 1)
        measured_csg = np.maximum(self.measured_cg, 1)[:, None]
        return TypeMeans(
            self.n_sampled_c,
            self.n_cells_c,
            self.measured_cg,
            self.average_expression(),
            {name: sums / measured_csg for name, sums in self.sums.items()},
            self.right_k / n_cells,
            self.selected_s / n_cells,
            self.expressed_s / n_cells,
        )

    def average_expression(self) -> np.ndarray:
        """Mean expression (c, g); a type that was predicted but not sampled gets that of all."""
        whole_g = self.expression_cg.sum(axis=0) / np.maximum(self.seen_cg.sum(axis=0), 1)
        own_cg = self.expression_cg / np.maximum(self.seen_cg, 1)
        return np.where(self.n_sampled_c[:, None] > 0, own_cg, whole_g)


def sum_cells(value_ng: Tensor) -> np.ndarray:
    """Sum over the cells, the second last axis, in float64."""
    return value_ng.sum(dim=-2, dtype=torch.float64).cpu().numpy()
