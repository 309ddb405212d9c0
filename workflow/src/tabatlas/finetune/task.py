"""The task of fine-tuning: class-balanced cross-entropy on labelled cells."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tabatlas.scores.classification import average_f1, count_confusion
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.train.predict import draw_hidden, forget_levels, open_inputs, predict
from tabatlas.train.step import Attend


class LabeledCells(NamedTuple):
    """Cells of which genes are hidden, and their types."""

    x: Entries
    hidden: GeneSets
    covariates: Covariates
    label_n: Tensor


class CellTypes:
    """Tell the cell type of a cell from its measured genes."""

    def __init__(
        self,
        classifier: Classifier,
        presence_mg: Tensor,
        weight_c: Tensor,
        balance_c: Tensor,
        validation: PackedSource,
        rows: np.ndarray,
        batch_size: int,
        hidden_ratio: float,
        unknown_ratio: float,
        lambda_sparse: float,
    ) -> None:
        self.model = classifier
        self.presence_mg = presence_mg
        # Training cells are drawn more or less often, validation cells once: two sets of weights.
        self.weight_c, self.balance_c = weight_c, balance_c
        self.validation, self.rows, self.batch_size = validation, rows, batch_size
        self.hidden_ratio, self.unknown_ratio = hidden_ratio, unknown_ratio
        self.lambda_sparse = lambda_sparse

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> LabeledCells:
        """Hide genes and forget levels."""
        x, missing, covariates = open_inputs(minibatch, self.presence_mg)
        hidden, _ = draw_hidden(missing, self.hidden_ratio, generator)
        covariates = forget_levels(covariates, self.unknown_ratio, generator)
        return LabeledCells(x, hidden, covariates, minibatch.label)

    def sizes(self, inputs: LabeledCells) -> tuple[int]:
        """Cells."""
        return (inputs.x.n_rows,)

    def loss(self, inputs: LabeledCells, totals: Sequence[int]) -> Tensor:
        """Weighted cross-entropy and entropy of the masks: these cells' part of both means."""
        x, hidden, covariates, label_n = inputs
        (n_cells,) = totals
        logits_nc, encoding = self.model.classify(x, hidden, covariates)
        surprise = weigh_losses(logits_nc, label_n, self.weight_c).sum() / n_cells
        return surprise + self.lambda_sparse * encoding.entropy * (x.n_rows / n_cells)

    def logits(self, x: Entries, missing: GeneSets, covariates: Covariates) -> Tensor:
        """Logits (n, c), as `predict` asks for them."""
        return self.model.classify(x, missing, covariates)[0]

    def validate(self, attend: Attend = iter) -> dict[str, float]:
        """Class-balanced loss and macro-F1 of the labelled validation cells."""
        label_n, logits_nc = self.predict_rows(self.validation, self.rows, attend)
        predicted_n = logits_nc.argmax(dim=1).numpy()
        confusion = count_confusion(label_n.numpy(), predicted_n, len(self.weight_c))
        return {
            "validation_loss": weigh_losses(
                logits_nc.to(self.balance_c.device),
                label_n.to(self.balance_c.device),
                self.balance_c,
            )
            .mean()
            .item(),
            "validation_macro_f1": float(average_f1(confusion)),
        }

    def predict_rows(
        self, source: PackedSource, rows: np.ndarray, attend: Attend = iter
    ) -> tuple[Tensor, Tensor]:
        """Labels (n,) and logits (n, c) on the CPU, in the order of `rows`."""
        minibatches = attend(source.iterate(rows, self.batch_size))
        parts = [
            (minibatch.label.cpu(), logits_nc.float().cpu())
            for minibatch, logits_nc in predict(self.logits, minibatches, self.presence_mg)
        ]
        labels, logits = zip(*parts, strict=True)
        return torch.cat(labels), torch.cat(logits)


def weigh_losses(logits_nc: Tensor, label_n: Tensor, weight_c: Tensor) -> Tensor:
    """Weight of each cell's class times its cross-entropy in nats (n,).

    The weights' mean over an epoch is 1, so that no minibatch needs its own norm.
    """
    loss_n = F.cross_entropy(at_least_float32(logits_nc), label_n, reduction="none")
    return weight_c[label_n] * loss_n
