"""What a model says of each cell of a query, and the names under which it is stored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tabatlas import names

PREFIX = "tabatlas"
EMBEDDING = f"X_{PREFIX}"


@dataclass(frozen=True)
class CellType:
    """A class of a model: its name and its Cell Ontology id, or `unknown`."""

    label: str
    ontology_term_id: str


@dataclass(frozen=True)
class Annotation:
    """Of n cells: class, confidence, status (a number of `names.STATUSES`) and place (n, z)."""

    class_n: np.ndarray
    confidence_n: np.ndarray
    status_n: np.ndarray
    place_nz: np.ndarray

    @classmethod
    def allocate(cls, n_cells: int, n_latent: int) -> "Annotation":
        """Arrays to be filled block by block: 9 + 4 z bytes per cell."""
        return cls(
            np.empty(n_cells, np.int32),
            np.empty(n_cells, np.float32),
            np.empty(n_cells, np.int8),
            np.empty((n_cells, n_latent), np.float32),
        )

    def fill(self, first: int, block: "Annotation") -> None:
        """Put the cells of a block in their place."""
        rows = slice(first, first + len(block.class_n))
        self.class_n[rows], self.confidence_n[rows] = block.class_n, block.confidence_n
        self.status_n[rows], self.place_nz[rows] = block.status_n, block.place_nz

    def describe(self, types: Sequence[CellType]) -> dict[str, pd.Categorical | np.ndarray]:
        """The columns of obs. A cell that is not assigned has the label `unknown`."""
        labels, terms = [one.label for one in types], [one.ontology_term_id for one in types]
        given_n = np.where(
            self.status_n == names.STATUSES.index(names.ASSIGNED), self.class_n, len(types)
        )
        return {
            f"{PREFIX}_label": categorize(given_n, [*labels, names.UNKNOWN]),
            f"{PREFIX}_ontology_term_id": categorize(given_n, [*terms, names.UNKNOWN]),
            f"{PREFIX}_confidence": self.confidence_n,
            f"{PREFIX}_label_unfiltered": categorize(self.class_n, labels),
            f"{PREFIX}_status": categorize(self.status_n, names.STATUSES),
        }

    def count_statuses(self) -> dict[str, int]:
        """Number of cells of each status."""
        counted = np.bincount(self.status_n, minlength=len(names.STATUSES))
        return dict(zip(names.STATUSES, counted.tolist(), strict=True))


def categorize(number_n: np.ndarray, values: Sequence[str]) -> pd.Categorical:
    """Numbers as the values they stand for; equal values are one category, unused ones none."""
    unique = list(dict.fromkeys(values))
    code_v = np.array([unique.index(value) for value in values])
    return pd.Categorical.from_codes(code_v[number_n], unique).remove_unused_categories()
