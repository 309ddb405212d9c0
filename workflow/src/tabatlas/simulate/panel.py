"""Which genes the demo atlas has, and which of them a dataset measured."""

import numpy as np
import pandas as pd

from tabatlas.genes import PROTEIN_CODING, load_gene_table
from tabatlas.names import FEATURE_ID, FEATURE_NAME, FEATURE_TYPE
from tabatlas.simulate.design import ORGANISM, DatasetDesign
from tabatlas.simulate.draws import named_generator
from tabatlas.simulate.markers import MITOCHONDRIAL, list_named_genes


def choose_genes(n_genes: int, seed: int) -> pd.DataFrame:
    """The atlas's protein-coding genes in genome order: all named ones, the rest drawn.

    Index symbol, column `feature_id`. Genes whose symbol is missing or not unique are left out, so
    that a file that names its genes by symbols loses none.
    """
    table = load_gene_table(ORGANISM).reset_index()
    symbols = table[FEATURE_NAME]
    clear = ~symbols.duplicated(keep=False) & ~symbols.str.startswith("ENSG")
    coding = table[clear & (table[FEATURE_TYPE] == PROTEIN_CODING)].set_index(FEATURE_NAME)
    is_named = coding.index.isin(list_named_genes())
    others = np.flatnonzero(~is_named)
    rng = named_generator(seed, "panel")
    drawn = rng.choice(others, n_genes - is_named.sum(), replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(is_named), drawn]))
    return coding.iloc[rows][[FEATURE_ID]]


def choose_measured(design: DatasetDesign, symbols: pd.Index, seed: int) -> np.ndarray:
    """Which genes the dataset's file has (g,). The mitochondrial ones, which QC needs, are kept."""
    measured = np.ones(len(symbols), dtype=bool)
    removable = np.flatnonzero(~symbols.isin(MITOCHONDRIAL.split()))
    n_unmeasured = round(design.unmeasured * len(symbols))
    rng = named_generator(seed, "unmeasured", design.name)
    measured[rng.choice(removable, n_unmeasured, replace=False)] = False
    return measured
