"""Give every cell its part and the reason for it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.experiment import name_donors
from tabatlas.split.donors import draw_units, tie_groups
from tabatlas.split.perturbations import HELD_OUT_FOLD
from tabatlas.split.settings import SplitSettings

TRAIN, VALIDATION, TEST = names.PARTS
EXCLUDED = "excluded"
WHOLE_PEOPLE = ("donors", "datasets")
# One donor of two is an honest test; a validation needs variety on the training side too.
LEAST_TEST, LEAST_VALIDATION = 2, 3


@dataclass(frozen=True)
class Units:
    """By what whole units test and validation were drawn: donors, batches, cells or datasets."""

    test: str
    validation: str


def assign_parts(
    obs: pd.DataFrame, duplicates: np.ndarray, folds: pd.DataFrame, settings: SplitSettings
) -> tuple[pd.DataFrame, Units]:
    """obs with the columns `split`, `reason` and `donor`, and the units that were drawn.

    A second copy of a cell and cells of held-out perturbations are excluded. Cells of a screen
    train: what is held out there are perturbations, not donors.
    """
    assigned = obs.copy()
    donors = name_donors(obs)
    assigned["donor"] = donors
    assigned[names.SPLIT], assigned["reason"] = TRAIN, ""
    exclude_cells(assigned, duplicates, folds)
    groups = group_people(obs, donors, duplicates, settings)
    drawn = (assigned[names.SPLIT] == TRAIN).to_numpy()
    screened = obs[names.PERTURBATION_STRATEGY].astype(str) != names.NO_PERTURBATIONS
    drawn &= ~screened.to_numpy()
    test_unit = draw_test(assigned, groups, drawn, settings)
    exclude_people(assigned, groups, TEST, test_unit)
    drawn &= (assigned[names.SPLIT] == TRAIN).to_numpy()
    rng = np.random.default_rng([settings.seed, 2])
    unit = draw_into(
        assigned, groups, drawn, VALIDATION, settings.validation_fraction, LEAST_VALIDATION, rng
    )
    exclude_people(assigned, groups, VALIDATION, unit)
    return assigned.assign(group=groups), Units(test_unit, unit)


def exclude_cells(assigned: pd.DataFrame, duplicates: np.ndarray, folds: pd.DataFrame) -> None:
    """Mark second copies of cells, and cells of the perturbations that are held out."""
    assigned.loc[np.unique(duplicates[:, 1]), [names.SPLIT, "reason"]] = EXCLUDED, "duplicate"
    held_out = folds.loc[folds["fold"] == HELD_OUT_FOLD, names.PERTURBATION_ID]
    perturbed = assigned[names.PERTURBATION_ID].astype(str).isin(held_out)
    assigned.loc[perturbed, [names.SPLIT, "reason"]] = EXCLUDED, "held-out perturbation"


def exclude_people(assigned: pd.DataFrame, groups: np.ndarray, part: str, unit: str) -> None:
    """Leave out what else is there of the people of a part: cells of theirs in a screen, say."""
    if unit not in WHOLE_PEOPLE:
        return
    parts = assigned[names.SPLIT].to_numpy()
    also = np.isin(groups, groups[parts == part]) & (parts == TRAIN)
    assigned.loc[also, [names.SPLIT, "reason"]] = EXCLUDED, f"donor of the {part}"


def group_people(
    obs: pd.DataFrame, donors: pd.Series, duplicates: np.ndarray, settings: SplitSettings
) -> np.ndarray:
    """Codes of groups of cells that must stay on one side (n,).

    Donors; those of datasets of the same people; and donors who share a duplicate cell.
    """
    codes = pd.factorize(donors, sort=True)[0]
    ties = [(codes[first], codes[second]) for first, second in duplicates]
    for datasets in settings.same_people:
        together = np.unique(codes[obs[names.DATASET_ID].astype(str).isin(datasets)])
        ties += [(together[0], other) for other in together[1:]]
    return tie_groups(codes, ties)


def draw_test(
    assigned: pd.DataFrame, groups: np.ndarray, drawn: np.ndarray, settings: SplitSettings
) -> str:
    """Mark the test: the held-out datasets, else drawn donors; return the unit that was kept."""
    if settings.held_out_datasets:
        held_out = assigned[names.DATASET_ID].astype(str).isin(settings.held_out_datasets)
        kept = assigned[names.SPLIT] == TRAIN
        assigned.loc[kept & held_out, names.SPLIT] = TEST
        return "datasets"
    rng = np.random.default_rng([settings.seed, 0])
    return draw_into(assigned, groups, drawn, TEST, settings.test_fraction, LEAST_TEST, rng)


def draw_into(
    assigned: pd.DataFrame,
    groups: np.ndarray,
    drawn: np.ndarray,
    part: str,
    fraction: float,
    least: int,
    rng: np.random.Generator,
) -> str:
    """Move about `fraction` of the cells `drawn` into `part`; return the unit that was kept."""
    rows = np.flatnonzero(drawn)
    if not len(rows) or fraction == 0:
        return "none"
    cells = assigned.iloc[rows]
    batches, labels = (cells[name].astype(str) for name in (names.BATCH, names.CELL_TYPE))
    columns = (groups[rows], batches.to_numpy(), labels.to_numpy())
    chosen, unit = draw_units(*columns, fraction, least, rng)
    assigned.loc[rows[chosen], names.SPLIT] = part
    return unit
