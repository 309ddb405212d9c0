"""Predictions of the classifier and of the baselines on the same cells of the experiment."""

from dataclasses import dataclass

import numpy as np
import torch

from tabatlas.counts import log1p_cp10k
from tabatlas.finetune.task import CellTypes
from tabatlas.scores.baselines import MAX_CELLS, LogisticBaseline, sample_cells
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource
from tabatlas.train.predict import predict


@dataclass(frozen=True)
class Predictions:
    """Of n cells: logits of TabNet (n, c) and probabilities of logistic regression (n, c)."""

    joinid_n: np.ndarray
    label_n: np.ndarray
    logits_nc: np.ndarray
    logistic_nc: np.ndarray


def fit_logistic(
    source: PackedSource, rows: np.ndarray, n_classes: int, seed: int
) -> LogisticBaseline:
    """Logistic regression on the labelled training cells `rows`, or a sample of them."""
    rng = np.random.default_rng([seed, 0])
    chosen = rows[sample_cells(source.label_n[rows], MAX_CELLS, rng)]
    minibatch = source.read(chosen)
    cells = log1p_cp10k(minibatch.to_csr(source.n_genes), minibatch.total_n.numpy())
    return LogisticBaseline(cells, source.label_n[chosen], n_classes)


def predict_cells(
    task: CellTypes, logistic: LogisticBaseline, source: SomaSource, batch_size: int
) -> Predictions:
    """Both methods on every cell of `source`, minibatch by minibatch."""
    task.model.eval()
    device = task.presence_mg.device
    presence_mg = source.presence.to(device)
    n_classes = len(task.weight_c)
    parts: list[tuple[np.ndarray, ...]] = [
        (np.empty(0, np.int64), np.empty(0, np.int64), *np.empty((2, 0, n_classes), np.float32))
    ]
    for minibatch, logits_nc in predict(task.logits, source.iterate(batch_size), presence_mg):
        parts.append(
            (
                minibatch.joinid.cpu().numpy(),
                minibatch.label.cpu().numpy(),
                logits_nc.float().cpu().numpy(),
                logistic.predict(scale_cells(minibatch, presence_mg.shape[1])),
            )
        )
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def scale_cells(minibatch: Minibatch, n_genes: int):
    """log1p(CP10k) of a minibatch as CSR on the CPU."""
    here = minibatch.to(torch.device("cpu"))
    return log1p_cp10k(here.to_csr(n_genes), here.total_n.numpy())
