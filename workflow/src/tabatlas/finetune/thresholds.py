"""The least that is asked of a cell before it gets a label, learned from validation cells."""

import logging
from dataclasses import replace

import numpy as np
import torch

from tabatlas import names
from tabatlas.finetune.calibrate import fit_temperature
from tabatlas.finetune.degrade import MAX_CELLS, draw_droplets, thin_counts
from tabatlas.finetune.predictions import judge_all
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.train.device import seed_generator

logger = logging.getLogger(__name__)

# Molecules of the model's genes: from 8 to 1024 in steps of √2.
DEPTHS = tuple(round(2 ** (half / 2)) for half in range(6, 21))


def learn_thresholds(
    task: CellTypes,
    cells: PackedSource,
    rows: np.ndarray,
    profile_cg: np.ndarray,
    chosen: FinetuneSettings,
) -> tuple[float, Typicality]:
    """Temperature and rule that fit the labelled validation cells `rows`."""
    rule = Typicality(torch.from_numpy(profile_cg), chosen.ambient_share, 0.0, 1)
    minibatches = cells.iterate(rows, chosen.batch_size)
    whole = judge_all(task, rule, minibatches, task.presence_mg)
    temperature = fit_temperature(whole.logits_nc, whole.label_n)
    rule = replace(rule, min_typicality=find_typicality(whole.typicality_n, chosen.low_share))
    depth = find_depth(task, rule, cells.read(rows[:MAX_CELLS]), chosen)
    return temperature, replace(rule, min_counts=depth)


def find_typicality(typicality_n: np.ndarray, low_share: float) -> float:
    """Half of the typicality below which `low_share` of the cells lie; 0 where that is negative.

    Half-way between the ambient, which has 0, and the least typical of the cells that were learned
    from: a query is of another study, whose cells are less typical than those of this one.
    """
    return round(max(float(np.quantile(typicality_n, low_share)) / 2, 0.0), 6)


def find_depth(
    task: CellTypes, rule: Typicality, cells: Minibatch, chosen: FinetuneSettings
) -> int:
    """The least depth at which cells keep their label and empty droplets get none; or the last.

    The cells are thinned to that depth, where they are deeper, and empty droplets are drawn from
    the mean of all types, which is none of them at any depth. `kept_share` and `empty_share` say
    how many must keep their label and how many may get one.
    """
    rng, generator = np.random.default_rng([chosen.seed, 4]), seed_generator("cpu", chosen.seed)
    class_n = judge_all(task, rule, [cells], task.presence_mg).class_n
    counts_n = count_molecules(cells).numpy()
    soup_g = rule.profile_cg.double().mean(dim=0).numpy()
    soup_ng = soup_g * task.presence_mg.cpu().numpy()[cells.dataset]
    for depth in DEPTHS:
        share_n = torch.from_numpy(np.minimum(depth / np.maximum(counts_n, 1), 1))
        thin = judge_all(task, rule, [thin_counts(cells, share_n, generator)], task.presence_mg)
        depth_n = np.full(len(cells), depth)
        droplets = draw_droplets(cells, depth_n, soup_ng, rng)
        empty = judge_all(task, rule, [droplets], task.presence_mg)
        labelled_n = rule.judge(empty.typicality_n, depth_n) == names.ASSIGNED
        deeper_n = counts_n > depth
        kept_n = (thin.class_n == class_n)[deeper_n]
        if labelled_n.mean() <= chosen.empty_share and (
            not kept_n.size or kept_n.mean() >= chosen.kept_share
        ):
            return depth
    logger.warning("at no depth do cells keep their label and empty droplets get none")
    return DEPTHS[-1]
