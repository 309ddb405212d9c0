"""Put the annotation into a copy of the query's file; nothing else in it is touched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from tabatlas.counts import open_h5ad
from tabatlas.errors import InputError


def write_annotation(
    path: Path,
    source: str,
    obs: Mapping[str, pd.Categorical | np.ndarray],
    obsm: Mapping[str, np.ndarray],
    uns: Mapping[str, Any],
) -> None:
    """Add columns, arrays and facts to an h5ad; those of the same name are replaced."""
    with open_h5ad(path, source, mode="r+") as file:
        frame = file["obs"]
        index = frame.attrs["_index"]
        if index in obs:
            raise InputError(
                f"`{index}` of obs holds the names of the cells and would be written over. Rename "
                "the index."
            )
        replace_elements(frame, obs)
        before = (decode_name(name) for name in frame.attrs["column-order"])
        order = [name for name in before if name not in obs]
        frame.attrs["column-order"] = np.array([*order, *obs], dtype=h5py.string_dtype())
        for name, elements in (("obsm", obsm), ("uns", uns)):
            if name not in file:
                write_elem(file, name, {})
            replace_elements(file[name], elements)


def decode_name(name: str | bytes) -> str:
    """The name of a column; some writers store bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)


def replace_elements(group: h5py.Group, elements: Mapping[str, Any]) -> None:
    """Write elements into a group as anndata does."""
    for name, values in elements.items():
        if name in group:
            del group[name]
        write_elem(group, name, values)
