"""Folds of perturbations: whole perturbations, so that none is learnt before it is predicted."""

import numpy as np
import pandas as pd

from tabatlas import names

HELD_OUT_FOLD = 0


def fold_perturbations(obs: pd.DataFrame, n_folds: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row per perturbation: id, number of targets and of cells, fold.

    Singles are dealt to the folds in random order. Every combination is in fold 0: what is to be
    predicted from its parts is held out whole.
    """
    perturbed = obs[obs[names.PERTURBATION_ID].astype(str) != names.NOT_APPLICABLE]
    n_cells = perturbed[names.PERTURBATION_ID].astype(str).value_counts().sort_index()
    table = n_cells.rename("n_cells").rename_axis(names.PERTURBATION_ID).reset_index()
    ids = table[names.PERTURBATION_ID]
    table["n_targets"] = ids.str.count(names.PERTURBATION_DELIMITER.strip().replace("|", r"\|")) + 1
    table["fold"] = HELD_OUT_FOLD
    singles = np.flatnonzero(table["n_targets"] == 1)
    table.loc[rng.permutation(singles), "fold"] = np.arange(len(singles)) % n_folds
    return table.astype({"n_cells": np.int64, "n_targets": np.int64, "fold": np.int64})
