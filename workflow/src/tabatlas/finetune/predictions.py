"""Predictions of the classifier and of the baselines on the same cells of the experiment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tabatlas.counts import log1p_cp10k
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.scores.baselines import MAX_CELLS, LogisticBaseline, sample_cells
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.train.predict import predict


@dataclass(frozen=True)
class Judged:
    """Of n cells: label, logits (n, c), typicality, molecules seen."""

    label_n: np.ndarray
    logits_nc: np.ndarray
    typicality_n: np.ndarray
    counts_n: np.ndarray

    @property
    def class_n(self) -> np.ndarray:
        """The class that each cell is named."""
        return self.logits_nc.argmax(axis=1)

    @classmethod
    def empty(cls, n_classes: int) -> Self:
        """No cell."""
        nothing = np.empty((0, n_classes), np.float32)
        return cls(np.empty(0, np.int64), nothing, np.empty(0, np.float32), np.empty(0, np.int64))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The cells of several parts, one after the other."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*map(np.concatenate, columns))

    def take(self, chosen_n: np.ndarray) -> Self:
        """The chosen cells."""
        return type(self)(*(getattr(self, field.name)[chosen_n] for field in fields(self)))


@dataclass(frozen=True)
class Predictions:
    """Of n cells: what TabNet says, and probabilities of logistic regression (n, c)."""

    joinid_n: np.ndarray
    judged: Judged
    logistic_nc: np.ndarray


def fit_logistic(
    source: PackedSource, rows: np.ndarray, n_classes: int, seed: int
) -> LogisticBaseline:
    """Logistic regression on the labelled training cells `rows`, or a sample of them."""
    rng = np.random.default_rng([seed, 0])
    label_n = source.cells.find_classes(rows)
    minibatch = source.read(rows[sample_cells(label_n, MAX_CELLS, rng)])
    cells = log1p_cp10k(minibatch.to_csr(source.n_genes), minibatch.total_n.numpy())
    return LogisticBaseline(cells, minibatch.label.numpy(), n_classes)


def predict_cells(
    task: CellTypes,
    rule: Typicality,
    logistic: LogisticBaseline,
    source: SomaSource,
    batch_size: int,
) -> Predictions:
    """Both methods on every cell of `source`, minibatch by minibatch."""
    presence_mg = source.presence.to(task.presence_mg.device)
    n_classes = len(task.weight_c)
    joinids, judged = [np.empty(0, np.int64)], [Judged.empty(n_classes)]
    logistics = [np.empty((0, n_classes), np.float32)]
    for minibatch, found in judge_minibatches(task, rule, source.iterate(batch_size), presence_mg):
        joinids.append(minibatch.joinid.cpu().numpy())
        judged.append(found)
        logistics.append(logistic.predict(scale_cells(minibatch, presence_mg.shape[1])))
    return Predictions(np.concatenate(joinids), Judged.join(judged), np.concatenate(logistics))


def judge_minibatches(
    task: CellTypes, rule: Typicality, minibatches: Iterable[Minibatch], presence_mg: Tensor
) -> Iterator[tuple[Minibatch, Judged]]:
    """Each minibatch with what the classifier says of its cells."""
    task.model.eval()
    forward = partial(judge_inputs, task, rule.to(presence_mg.device))
    for minibatch, (logits_nc, typicality_n) in predict(forward, minibatches, presence_mg):
        given = (minibatch.label, logits_nc.float(), typicality_n, count_molecules(minibatch))
        yield minibatch, Judged(*(one.cpu().numpy() for one in given))


def judge_all(
    task: CellTypes, rule: Typicality, minibatches: Iterable[Minibatch], presence_mg: Tensor
) -> Judged:
    """What the classifier says of all cells of `minibatches`, in their order."""
    parts = judge_minibatches(task, rule, minibatches, presence_mg)
    return Judged.join([Judged.empty(len(task.weight_c)), *(judged for _, judged in parts)])


def judge_inputs(
    task: CellTypes,
    rule: Typicality,
    x: Entries,
    missing: GeneSets,
    covariates: Covariates,
) -> tuple[Tensor, Tensor]:
    """Logits (n, c) and typicality (n,), as `predict` asks for them."""
    logits_nc = task.logits(x, missing, covariates)
    return logits_nc, rule.measure(x, missing, logits_nc)


def scale_cells(minibatch: Minibatch, n_genes: int):
    """log1p(CP10k) of a minibatch as CSR on the CPU."""
    here = minibatch.to(torch.device("cpu"))
    return log1p_cp10k(here.to_csr(n_genes), here.total_n.numpy())
