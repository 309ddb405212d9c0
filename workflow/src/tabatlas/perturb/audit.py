"""Leak audit: what training really read, against what was held out."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import IntegrityError
from tabatlas.perturb.sets import PerturbationSet
from tabatlas.split.perturbations import HELD_OUT_FOLD
from tabatlas.stream.packed import PackedSource

BATCH = 1024


def list_yielded(train: PackedSource, validation: PackedSource, seed: int) -> dict[str, np.ndarray]:
    """Joinids of the cells that the loader yields in one epoch, by part, as it yields them.

    The order is the loader's own, applied to the joinids that its minibatches carry: no count is
    decoded.
    """
    epoch = train.order(BATCH, seed).draw(0)
    rows = np.concatenate([np.arange(0), *epoch.minibatches()])
    return {
        "train": train.joinid_n[rows],
        "validation": np.asarray(validation.joinid_n),
    }


def audit_cells(
    yielded: dict[str, np.ndarray], obs: pd.DataFrame, folds: pd.DataFrame
) -> dict[str, int]:
    """Counts of the cells that training read and of those held out, and of their overlap.

    `obs` has the joinid and the perturbation of every cell of the experiment. Raises
    `IntegrityError` where a cell of a held-out perturbation was read.
    """
    held_out = folds.loc[folds["fold"] == HELD_OUT_FOLD, names.PERTURBATION_ID].astype(str)
    is_held_out = obs[names.PERTURBATION_ID].astype(str).isin(set(held_out))
    held_out_n = obs.loc[is_held_out, names.JOINID].to_numpy()
    leaked = {part: np.intersect1d(joinid_n, held_out_n) for part, joinid_n in yielded.items()}
    found = {f"n_{part}_cells": len(joinid_n) for part, joinid_n in yielded.items()}
    found |= {
        "n_held_out_perturbations": len(held_out),
        "n_held_out_cells": len(held_out_n),
        "n_leaked_cells": sum(map(len, leaked.values())),
    }
    for part, joinid_n in leaked.items():
        if len(joinid_n):
            perturbation = obs.set_index(names.JOINID)[names.PERTURBATION_ID].loc[joinid_n[0]]
            raise IntegrityError(
                f"{len(joinid_n)} {part} cells of the pack are of held-out perturbations (first: "
                f"{perturbation}): the encoder saw what it is to predict. The pack was made from "
                "another split; run `tabatlas pack` and what follows again."
            )
    return found


def audit_fits(sets: Iterable[PerturbationSet]) -> int:
    """Tested perturbations that are among the known ones of their fit: 0, or `IntegrityError`."""
    parts = (part for test_set in sets for part in test_set.parts)
    leaked = [one for part in parts for one in part.test if one in part.train]
    if leaked:
        raise IntegrityError(
            f"{len(leaked)} tested perturbations are in the head's fit (first: {leaked[0]})."
        )
    return len(leaked)
