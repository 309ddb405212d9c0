"""Summaries of a split, and the proof that its parts do not meet."""

from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.split.assign import (
    EXCLUDED,
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE_PEOPLE,
    Units,
)
from tabatlas.split.perturbations import HELD_OUT_FOLD
from tabatlas.split.settings import SplitSettings

PARTS = (*names.PARTS, EXCLUDED)
N_NAMED = 10  # types that a note names


def prove_disjoint(assigned: pd.DataFrame, units: Units) -> dict[str, int]:
    """Number of cells, and of donors where whole donors were drawn, that stand on two sides.

    Every number is 0: a split that is not disjoint is our mistake and stops here.
    """
    found = {"cells": int(assigned[names.JOINID].duplicated().sum())}
    if units.test in WHOLE_PEOPLE:
        found["donors_of_train_and_test"] = count_shared(assigned, TRAIN, TEST)
        found["donors_of_validation_and_test"] = count_shared(assigned, VALIDATION, TEST)
    if units.validation in WHOLE_PEOPLE:
        found["donors_of_train_and_validation"] = count_shared(assigned, TRAIN, VALIDATION)
    assert not any(found.values()), f"the split is not disjoint: {found}"
    return found


def count_shared(cells: pd.DataFrame, one: str, other: str) -> int:
    """Number of groups of people (donors, and who is tied to them) with cells in both parts."""
    people = cells.groupby(names.SPLIT)["group"].unique()
    return len(np.intersect1d(people.get(one, []), people.get(other, [])))


def summarize_parts(
    assigned: pd.DataFrame, units: Units, settings: SplitSettings
) -> dict[str, Any]:
    """Sizes, classes and notes, for `split.json` and the report."""
    classes = count_classes(assigned)
    duplicates = assigned["reason"] == "duplicate"
    perturbed = assigned.loc[
        assigned["reason"] == "held-out perturbation", names.PERTURBATION_ID
    ].astype(str)
    return {
        "seed": settings.seed,
        "unit": units.test,
        "validation_unit": units.validation,
        "parts": {part: size_part(assigned[assigned[names.SPLIT] == part]) for part in PARTS},
        "classes": classes,
        "held_out_datasets": list(settings.held_out_datasets),
        "held_out_fold": HELD_OUT_FOLD,
        "perturbation_folds": settings.perturbation_folds,
        "n_duplicates": int(duplicates.sum()),
        "n_held_out_perturbations": int(perturbed.nunique()),
        "notes": note_units(units) + note_classes(classes),
    }


def count_classes(assigned: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Cells of every label in each part."""
    labelled = assigned[assigned[names.CELL_TYPE].astype(str) != names.UNKNOWN]
    table = pd.crosstab(labelled[names.CELL_TYPE].astype(str), labelled[names.SPLIT])
    return {
        label: {part: int(row.get(part, 0)) for part in names.PARTS}
        for label, row in table.iterrows()
    }


def size_part(cells: pd.DataFrame) -> dict[str, int]:
    """Cells, donors and labelled cells of a part."""
    return {
        "n_cells": len(cells),
        "n_donors": int(cells["donor"].nunique()),
        "n_labelled": int((cells[names.CELL_TYPE].astype(str) != names.UNKNOWN).sum()),
    }


def note_units(units: Units) -> list[str]:
    """What a reader must know of a split that could not keep donors whole."""
    words = {"batches": "whole batches", "cells": "single cells, stratified by label"}
    notes = []
    if units.test in words:
        notes.append(f"test drawn by {words[units.test]}: its donors also train")
    if units.validation in words:
        notes.append(f"validation drawn by {words[units.validation]}: its donors also train")
    return notes


def note_classes(classes: dict[str, dict[str, int]]) -> list[str]:
    """What a reader must know where whole donors leave types out of the validation."""
    trained = [label for label, row in classes.items() if row[TRAIN]]
    absent = [label for label in trained if not classes[label][VALIDATION]]
    if not absent:
        return []
    more = f" and {len(absent) - N_NAMED} more" if len(absent) > N_NAMED else ""
    return [
        f"no validation cell of {len(absent)} of {len(trained)} types: they have no say in when "
        f"the training stops or how sure it may be ({', '.join(absent[:N_NAMED])}{more})"
    ]
