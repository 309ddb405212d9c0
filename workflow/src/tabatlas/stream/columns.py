"""Columns of the cell table as numbers: labels and covariates."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from tabatlas import names


class Covariate(Protocol):
    """A column that a network knows; `levels` are empty where it is numerical."""

    name: str
    levels: Sequence[str]


def encode_labels(cells: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Class number of each cell, −1 where its label is none of `labels` (n,) int64."""
    return encode_text(cells[names.CELL_TYPE], labels)


def encode_levels(cells: pd.DataFrame, covariates: Sequence[Covariate]) -> np.ndarray:
    """Level of each categorical covariate, 0 where it is none of the known ones (n, k) int64."""
    columns = [encode_text(cells[one.name], one.levels) + 1 for one in covariates if one.levels]
    return np.stack(columns, axis=1) if columns else np.zeros((len(cells), 0), dtype=np.int64)


def take_numbers(cells: pd.DataFrame, covariates: Sequence[Covariate]) -> np.ndarray:
    """Value of each numerical covariate (n, j) float32."""
    wanted = [one.name for one in covariates if not one.levels]
    return cells[wanted].to_numpy(dtype=np.float32)


def encode_text(column: pd.Series, known: Sequence[str]) -> np.ndarray:
    """Number of each value among `known`, −1 where it is none of them (n,) int64."""
    return pd.Categorical(column.astype(str), categories=list(known)).codes.astype(np.int64)
