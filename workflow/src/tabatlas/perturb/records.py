"""The files of the stage: predictions as a table, heads as tensors and JSON, and back."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.perturb.heads import Head
from tabatlas.perturb.screens import Unit
from tabatlas.perturb.sets import PerturbationSet
from tabatlas.provenance import read_json
from tabatlas.train.tensors import pick, read_tensors

PART = "perturb"
FORMAT = 1
IDS = ("screen", "cell_line", "set", "perturbation", names.FEATURE_ID)
EFFECTS = pa.schema(
    {
        **dict.fromkeys(IDS, pa.dictionary(pa.int32(), pa.string())),
        "scored": pa.bool_(),
        "true_effect": pa.float32(),
        "predicted_effect": pa.float32(),
    }
)


def tabulate_effects(
    unit: Unit,
    test_set: PerturbationSet,
    scored_g: np.ndarray,
    true_pg: np.ndarray,
    own_pg: np.ndarray,
) -> pd.DataFrame:
    """True and predicted effect of every tested perturbation on every gene, by `EFFECTS`."""
    n, g = true_pg.shape
    zero = np.zeros(n * g, dtype=np.int32)
    codes = {
        "screen": (zero, [unit.screen]),
        "cell_line": (zero, [unit.cell_line]),
        "set": (zero, [test_set.name]),
        "perturbation": (np.repeat(np.arange(n, dtype=np.int32), g), test_set.test),
        names.FEATURE_ID: (np.tile(np.arange(g, dtype=np.int32), n), unit.genes),
    }
    table = {name: pd.Categorical.from_codes(*one) for name, one in codes.items()}
    table |= {
        "scored": np.tile(scored_g, n),
        "true_effect": true_pg.ravel().astype(np.float32),
        "predicted_effect": own_pg.ravel().astype(np.float32),
    }
    return pd.DataFrame(table)


def name_tensors(head: Head, number: int) -> dict[str, Tensor]:
    """The arrays of a unit's head, under `perturb/<number>/`."""
    arrays = {
        "mean_g": head.mean_g,
        "residual_tg": head.residual_tg,
        "center_d": head.center_d,
        "mean_d": head.mean_d,
        "feature_td": head.feature_td,
        "dual_tg": head.dual_tg,
    }
    return {
        f"{PART}/{number}/{name}": torch.from_numpy(array.astype(np.float32))
        for name, array in arrays.items()
    }


def describe_head(head: Head, unit: Unit, method: str) -> dict[str, Any]:
    """What the tensors of a head are of; `method` is what it may be called."""
    return {
        "screen": unit.screen,
        "cell_line": unit.cell_line,
        "organism": unit.organism,
        "strategy": unit.strategy,
        "method": method,
        "kernel": "linear, on centered gene embeddings (decoder/genes.weight) of length 1",
        "strength": None if math.isinf(head.strength) else head.strength,
        "targets": list(head.targets),
        "genes": list(unit.genes),
        "unit": "log1p(CP10k), difference to the control cells",
    }


def read_heads(folder: Path) -> list[tuple[dict[str, Any], Head]]:
    """The heads of a folder, each with what `heads.json` says of it."""
    tensors = read_tensors(folder / "model.safetensors")[0]
    return [(one, build_head(one, tensors)) for one in read_json(folder / "heads.json")["heads"]]


def build_head(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Head:
    """A head from its description and its tensors."""
    arrays = pick(tensors, f"{PART}/{about['number']}")
    strength = math.inf if about["strength"] is None else about["strength"]
    return Head(
        targets=tuple(about["targets"]),
        strength=strength,
        **{name: tensor.numpy().astype(np.float64) for name, tensor in arrays.items()},
    )
