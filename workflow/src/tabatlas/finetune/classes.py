"""Which labels are classes, what each is called, and what each weighs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.ontology import lineage

# A class of three cells among millions would otherwise make up a third of some gradients.
MAX_WEIGHT = 20.0


@dataclass(frozen=True)
class CellClass:
    """One class: its name, its Cell Ontology id (or `unknown`), its number of training cells."""

    label: str
    ontology_term_id: str
    n_train: int

    def describe(self) -> dict[str, Any]:
        """As `labels.json` holds it."""
        return asdict(self)


def choose_classes(cells: pd.DataFrame, min_cells: int) -> list[CellClass]:
    """The labels of the training cells that have enough of them, relatives side by side.

    Raises `InputError` where fewer than two are left.
    """
    labelled = cells[cells[names.CELL_TYPE] != names.UNKNOWN]
    counts = labelled[names.CELL_TYPE].value_counts()
    firsts = labelled.drop_duplicates(names.CELL_TYPE)
    terms = dict(zip(firsts[names.CELL_TYPE], firsts[names.CELL_TYPE_ID], strict=True))
    classes = [
        CellClass(label, str(terms[label]), n) for label, n in counts.items() if n >= min_cells
    ]
    if len(classes) < 2:
        raise InputError(
            f"{len(labelled)} labelled training cells make {len(classes)} classes of at least "
            f"{min_cells} cells; two are needed. Check `cell_type` in the dataset table, "
            "`fetch.cell_types` and `finetune.min_class_cells`."
        )
    # Labels without a term stand after the ontology, in alphabetical order.
    return sorted(classes, key=lambda one: (*order_key(one.ontology_term_id), one.label))


def order_key(term: str) -> tuple[bool, tuple[str, ...]]:
    """Sorts terms so that relatives stand side by side, `unknown` last."""
    return term == names.UNKNOWN, () if term == names.UNKNOWN else lineage(term)


def repeat_classes(classes: Sequence[CellClass], max_repeats: float) -> np.ndarray:
    """How often a cell of each class stands in an epoch, on average (c,) float64.

    All classes alike often, as far as `max_repeats` allows; once each where that is 0.
    """
    n_c = np.array([one.n_train for one in classes], dtype=np.float64)
    return np.minimum(n_c.mean() / n_c, max_repeats) if max_repeats else np.ones(len(n_c))


def weigh_classes(classes: Sequence[CellClass], repeats_c: np.ndarray) -> np.ndarray:
    """Weight in the loss of a cell of each class (c,) float32.

    Every class counts alike in an epoch, however often its cells are repeated; the mean over the
    epoch is 1.
    """
    n_c = np.array([one.n_train for one in classes], dtype=np.float64)
    weight_c = np.minimum(n_c.mean() / n_c, MAX_WEIGHT) / repeats_c
    drawn_c = n_c * repeats_c
    return (weight_c * drawn_c.sum() / (weight_c * drawn_c).sum()).astype(np.float32)
