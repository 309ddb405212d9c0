"""Choose the training genes and describe them."""

from pathlib import Path

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import GeneMismatchError
from tabatlas.genes import read_gene_list
from tabatlas.pack.settings import PackSettings


def choose_genes(
    settings: PackSettings, atlas: pd.Index, measured: np.ndarray, organism: str
) -> np.ndarray:
    """Positions of the training genes among the atlas's genes, in the atlas's order.

    `measured` (g,) says which genes any dataset with training cells measured. With `hvg` all
    measured genes are candidates; see `pack.variable`.
    """
    if settings.genes in ("all", "hvg"):
        chosen = np.flatnonzero(measured)
    else:
        wanted = read_gene_list(Path(settings.genes), organism)
        positions = atlas.get_indexer(wanted)
        for place in np.flatnonzero(positions < 0)[:1]:
            raise GeneMismatchError(
                f"pack.genes: {settings.genes}: {wanted[place]} is no gene of the atlas. "
                "Take it out, or put it into normalize.genes."
            )
        chosen = np.sort(positions[measured[positions]])
    if not len(chosen):
        raise GeneMismatchError(f"pack.genes: {settings.genes}: no dataset measured any of them.")
    if len(chosen) > np.iinfo(np.uint16).max:
        raise GeneMismatchError(
            f"pack.genes: {len(chosen)} genes; at most {np.iinfo(np.uint16).max} fit a pack. "
            "Give a list or use `hvg`."
        )
    return chosen


def describe_genes(var: pd.DataFrame, moments: pd.DataFrame) -> pd.DataFrame:
    """The table `genes.parquet`: id, name, mean, sd, n_measured."""
    named = var[[names.FEATURE_ID, names.FEATURE_NAME]].reset_index(drop=True)
    return pd.concat([named, moments], axis=1)
