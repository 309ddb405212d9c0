"""Labels as class numbers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tabatlas import names


def encode_labels(cells: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Class number of each cell, −1 where its label is none of `labels` (n,) int64."""
    codes = pd.Categorical(cells[names.CELL_TYPE].astype(str), categories=list(labels)).codes
    return codes.astype(np.int64)
