"""What a source knows of its cells beside their counts: labels, covariates, names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.stream.order import UNIT

# Columns of whole numbers that every source has; further numbers are float32, texts are codes.
WHOLE = (names.JOINID, names.TOTAL_N, "dataset")


class Covariate(Protocol):
    """A column that a network knows; `levels` are empty where it is numerical."""

    name: str
    levels: Sequence[str]


class Cells:
    """The columns of n cells in stored order.

    `columns` are arrays (n,), mapped from a file or not; those that `levels` names hold places in
    its lists. Nothing of the length of the cells is made before it is asked for.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        levels: Mapping[str, Sequence[str]],
        labels: Sequence[str],
        covariates: Sequence[Covariate],
    ) -> None:
        self.columns, self.levels = columns, levels
        self.class_of_code = match_levels(levels[names.CELL_TYPE], labels)
        self.level_of_code = {
            one.name: match_levels(levels[one.name], one.levels) + 1
            for one in covariates
            if one.levels
        }
        self.numbers = [one.name for one in covariates if not one.levels]

    def __len__(self) -> int:
        return len(self.columns[names.JOINID])

    def find_classes(self, rows: np.ndarray | slice) -> np.ndarray:
        """Class number of each cell, −1 where its label is none of the wanted ones (n,) int64."""
        return self.class_of_code[self.columns[names.CELL_TYPE][rows]]

    def describe(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """All fields of a minibatch of the cells in `rows` but their counts."""
        level_kn = [
            code_level[self.columns[name][rows]] for name, code_level in self.level_of_code.items()
        ]
        number_jn = [self.columns[name][rows].astype(np.float32) for name in self.numbers]
        fields = {
            "total_n": self.columns[names.TOTAL_N][rows],
            "dataset": self.columns["dataset"][rows].astype(np.int64),
            "label": self.find_classes(rows),
            "level": stack_columns(level_kn, len(rows), np.int64),
            "number": stack_columns(number_jn, len(rows), np.float32),
            "joinid": self.columns[names.JOINID][rows],
        }
        return {name: torch.from_numpy(values) for name, values in fields.items()}

    def weigh(self, weight_c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Weights of rows for an `Order`: that of their class (c,), 0 for cells without one."""
        unit_c = np.append(np.rint(np.asarray(weight_c) * UNIT), 0).astype(np.int64)
        return lambda rows: unit_c[self.find_classes(rows)]

    def count_levels(self, name: str) -> pd.Series:
        """Cells of each level of a column of texts, by level; levels without cells are left out."""
        count_l = np.bincount(self.columns[name], minlength=len(self.levels[name]))
        found = pd.Series(count_l, index=list(self.levels[name]))
        return found[found > 0]

    def table(self, wanted: Sequence[str] = ()) -> pd.DataFrame:
        """The wanted columns, or all; texts are categories. This is of the length of the cells."""
        return pd.DataFrame({name: self.read_column(name) for name in wanted or self.columns})

    def read_column(self, name: str) -> Any:
        """One column as a table holds it."""
        values = np.asarray(self.columns[name])
        if name in self.levels:
            return pd.Categorical.from_codes(values, list(self.levels[name]))
        return values.copy()


def encode_cells(table: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Columns and levels of `Cells` from a table of cells, in which no value is missing."""
    columns, levels = {}, {}
    for name in table:
        if table[name].dtype.kind in "iufb":
            columns[name] = table[name].to_numpy(np.int64 if name in WHOLE else np.float32)
            continue
        coded = table[name].astype("category").cat.remove_unused_categories().cat
        levels[name] = coded.categories.astype(str).to_list()
        columns[name] = coded.codes.to_numpy().astype(np.min_scalar_type(len(levels[name])))
    return columns, levels


def match_levels(levels: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Place of each level among the wanted ones, −1 where it is none (levels,) int64."""
    return pd.Index(list(wanted), dtype=object).get_indexer(list(levels)).astype(np.int64)


def stack_columns(columns: Sequence[np.ndarray], n: int, kind: type) -> np.ndarray:
    """Columns (k × (n,)) side by side (n, k)."""
    return np.stack(columns, axis=1) if columns else np.zeros((n, 0), dtype=kind)
