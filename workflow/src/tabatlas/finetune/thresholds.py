"""The least that is asked of a cell before it gets a label, learned from validation cells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tabatlas.finetune.calibrate import fit_temperature
from tabatlas.finetune.degrade import thin_counts
from tabatlas.finetune.predictions import Judged, judge_all
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.train.device import seed_generator

DEPTHS = tuple(2**power for power in range(10, 2, -1))  # molecules of the model's genes


def learn_thresholds(
    task: CellTypes,
    cells: PackedSource,
    rows: np.ndarray,
    profile_cg: np.ndarray,
    chosen: FinetuneSettings,
) -> tuple[float, Typicality]:
    """Temperature and rule that fit the labelled validation cells `rows`."""
    minibatches = list(cells.iterate(rows, chosen.batch_size))
    rule = Typicality(torch.from_numpy(profile_cg), chosen.ambient_share, 0.0, 1)
    whole = judge_all(task, rule, minibatches, task.presence_mg)
    temperature = fit_temperature(whole.logits_nc, whole.label_n)
    generator = seed_generator("cpu", chosen.seed)
    return temperature, replace(
        rule,
        min_typicality=find_typicality(whole.typicality_n, chosen.low_share),
        min_counts=find_depth(task, rule, minibatches, whole, chosen.kept_share, generator),
    )


def find_typicality(typicality_n: np.ndarray, low_share: float) -> float:
    """Half of the typicality below which `low_share` of the cells lie; 0 where that is negative.

    Half-way between the ambient, which has 0, and the least typical of the cells that were learned
    from: a query is of another study, whose cells are less typical than those of this one.
    """
    return round(max(float(np.quantile(typicality_n, low_share)) / 2, 0.0), 6)


def find_depth(
    task: CellTypes,
    rule: Typicality,
    minibatches: Sequence[Minibatch],
    whole: Judged,
    kept_share: float,
    generator: torch.Generator,
) -> int:
    """The least depth at which `kept_share` of the cells keep the label of their full depth.

    The cells of `minibatches`, which `whole` judged, are thinned to ever fewer molecules; at each
    depth those count that were deeper. 1 where even the last depth will do.
    """
    least = 1
    for depth in DEPTHS:
        deeper_n = whole.counts_n > depth
        if not deeper_n.any():
            continue
        share_n = torch.from_numpy(depth / np.maximum(whole.counts_n, depth))
        parts = share_n.split([len(one) for one in minibatches])
        thinned = [
            thin_counts(minibatch, share, generator)
            for minibatch, share in zip(minibatches, parts, strict=True)
        ]
        found = judge_all(task, rule, thinned, task.presence_mg)
        if (found.class_n == whole.class_n)[deeper_n].mean() < kept_share:
            return least
        least = depth
    return least
