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
from tabatlas.tabnet.covariates import INPUT, Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.importance import weigh_steps
from tabatlas.tabnet.sparse import encode

AGGREGATIONS = ("weighted", "plain")


class Answers(NamedTuple):
    """A minibatch of n cells, and the classes that k classifiers name."""

    x: Entries
    missing: GeneSets
    covariates: Covariates
    predicted_kn: Tensor

    @property
    def x_ng(self) -> Tensor:
        """log1p(CP10k), dense."""
        return self.x.to_dense(self.missing.member_mg.shape[1])

    @property
    def missing_ng(self) -> Tensor:
        """True where a gene was not measured."""
        return self.missing.to_dense()


class Attribution(NamedTuple):
    """Of n cells and one classifier: its masks, and each step's share of the importance (s).

    Summed over its steps, `weighted_sng` is `weigh_masks` and `plain_sng` is `average_masks`.
    `covariate_nq` is the weighted importance of the covariates that are inputs.
    """

    masks_sng: Tensor
    weighted_sng: Tensor
    covariate_nq: Tensor

    @property
    def plain_sng(self) -> Tensor:
        """All steps alike."""
        return self.masks_sng / len(self.masks_sng)


class Attributor:
    """Runs all classifiers on a minibatch; the first one is the one that is explained.

    Answers come first, because a cell counts where all of them are right; then the masks of one
    classifier at a time, because s × n × g values of each are large.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = classifiers

    def __call__(self, x: Entries, missing: GeneSets, covariates: Covariates) -> Answers:
        """What every classifier answers."""
        found = [model.classify(x, missing, covariates)[0] for model in self.classifiers]
        predicted_kn = torch.stack([logits_nc.argmax(dim=1) for logits_nc in found])
        return Answers(x, missing, covariates, predicted_kn)

    @torch.inference_mode()
    def open_masks(self, number: int, answers: Answers) -> Attribution:
        """Masks of one classifier."""
        x, missing, covariates, _ = answers
        encoder = self.classifiers[number].encoder
        encoding = encode(encoder, x, missing, covariates)
        n_genes = missing.member_mg.shape[1]
        # Covariates that are inputs have masks after those of the genes.
        n_masks = n_genes + encoder.inputs.n_covariates
        masks_snq = torch.stack([mask.to_dense(n_masks) for mask in encoding.masks])
        weighted_snq = weigh_steps(masks_snq, encoding.decision_snd)
        return Attribution(
            masks_snq[..., :n_genes],
            weighted_snq[..., :n_genes],
            weighted_snq[..., n_genes:].sum(0),
        )


def name_inputs(classifier: Classifier) -> list[str]:
    """Names of the covariates that are inputs, in the order of their masks: numbers first."""
    inputs = [one for one in classifier.encoder.covariates if one.role == INPUT]
    return [one.name for one in sorted(inputs, key=lambda one: bool(one.levels))]


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
    entry over all steps; `n_measured` is the number of genes that a cell's dataset measured.
    `covariate_q` is the weighted importance of covariates, over all sampled cells.
    """

    n_sampled_c: np.ndarray
    n_cells_c: np.ndarray
    measured_cg: np.ndarray
    expression_cg: np.ndarray
    importance: dict[str, np.ndarray]
    accuracy_k: np.ndarray
    selected_s: np.ndarray
    expressed_s: np.ndarray
    n_measured: float
    covariate_q: np.ndarray

    def sum_steps(self, aggregation: str) -> np.ndarray:
        """Importance of every gene over all steps (k, c, g)."""
        return self.importance[aggregation].sum(axis=2)


class TypeSums:
    """Grows by minibatches into `TypeMeans`, which hold no masks of single cells.

    The type is the label, of cells that every classifier names rightly: the mask of a wrong answer
    explains the wrong type, and equal cells make the classifiers comparable.
    """

    def __init__(
        self, n_classifiers: int, n_classes: int, n_steps: int, n_genes: int, n_covariates: int
    ) -> None:
        shape = (n_classifiers, n_classes, n_steps, n_genes)
        self.sums = {name: np.zeros(shape) for name in AGGREGATIONS}
        self.seen_cg, self.measured_cg, self.expression_cg = np.zeros((3, n_classes, n_genes))
        self.n_sampled_c, self.n_cells_c = np.zeros((2, n_classes), dtype=np.int64)
        self.right_k = np.zeros(n_classifiers)
        self.selected_s, self.expressed_s = np.zeros((2, n_steps + 1))
        self.covariate_q = np.zeros(n_covariates)

    def add_cells(self, label_n: Tensor, answers: Answers) -> Tensor:
        """Add a minibatch; returns which cells all classifiers name rightly (n,)."""
        right_kn = answers.predicted_kn == label_n
        agreed_n = right_kn.all(dim=0)
        self.right_k += right_kn.sum(dim=1).cpu().numpy()
        measured_ng = ~answers.missing_ng
        for one in label_n.unique().tolist():
            own_n = label_n == one
            self.n_sampled_c[one] += int(own_n.sum())
            self.seen_cg[one] += sum_cells(measured_ng[own_n])
            self.expression_cg[one] += sum_cells(answers.x_ng[own_n])
            own_n = own_n & agreed_n
            self.n_cells_c[one] += int(own_n.sum())
            self.measured_cg[one] += sum_cells(measured_ng[own_n])
        return agreed_n

    def add_masks(self, number: int, label_n: Tensor, agreed_n: Tensor, found: Attribution) -> None:
        """Add what one classifier looks at in the cells that all classifiers name rightly."""
        plain_sng = found.plain_sng
        for one in label_n.unique().tolist():
            own_n = (label_n == one) & agreed_n
            self.sums["weighted"][number, one] += sum_cells(found.weighted_sng[:, own_n])
            self.sums["plain"][number, one] += sum_cells(plain_sng[:, own_n])

    def count_selected(self, found: Attribution, expressed_ng: Tensor) -> None:
        """Count the genes that a classifier selects, in each step and in any; weigh covariates."""
        self.covariate_q += sum_cells(found.covariate_nq)
        selected_sng = found.masks_sng > 0
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
            float(self.seen_cg.sum() / n_cells),
            self.covariate_q / n_cells,
        )

    def average_expression(self) -> np.ndarray:
        """Mean expression (c, g); a type that was predicted but not sampled gets that of all."""
        whole_g = self.expression_cg.sum(axis=0) / np.maximum(self.seen_cg.sum(axis=0), 1)
        own_cg = self.expression_cg / np.maximum(self.seen_cg, 1)
        return np.where(self.n_sampled_c[:, None] > 0, own_cg, whole_g)


def sum_cells(value_ng: Tensor) -> np.ndarray:
    """Sum over the cells, the second last axis, in float64."""
    return value_ng.sum(dim=-2, dtype=torch.float64).cpu().numpy()
