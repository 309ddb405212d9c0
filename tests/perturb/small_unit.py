"""A unit in memory."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.perturb.screens import CONTROL_ID, OUTSIDE, Unit


def make_unit(**changes: Any) -> Unit:
    """20 control cells and 10 of each of two perturbations, seven genes."""
    rng = np.random.default_rng(0)
    values = sp.random(40, 7, 0.5, "csr", random_state=rng)
    genes = pd.Index([f"ENSG{number:011d}" for number in range(7)])
    unit = {
        "screen": "screen",
        "cell_line": "line",
        "origin": OUTSIDE,
        "expression": "counts",
        "organism": "Homo sapiens",
        "strategy": "CRISPRa",
        "genes": genes,
        "id_n": np.array([CONTROL_ID] * 20 + ["A", "B"] * 10, dtype=object),
        "read": lambda rows: values[rows],
        "folds": {"A": 0, "B": 1},
    }
    return Unit(**(unit | changes))
