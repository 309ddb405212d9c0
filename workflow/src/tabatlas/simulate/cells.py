"""Who the cells are: donor, library, type, perturbation, depth, and the activity of each module."""

import numpy as np
import pandas as pd

from tabatlas.names import BATCH, CELL_TYPE, DONOR_ID, NOT_APPLICABLE, UNKNOWN
from tabatlas.simulate.design import CELL_TYPES, PERTURBATIONS, TREE, DatasetDesign
from tabatlas.simulate.draws import apportion, named_generator
from tabatlas.simulate.programs import DAMAGE

PERTURBATION = "perturbation"
SECOND_TYPE = "cell_type_second"
SECOND_PERTURBATION = "perturbation_second"
IS_DOUBLET = "is_doublet"
IS_DYING = "is_dying"
LIBRARY_SCALE = "library_scale"

DOUBLET_SHARE = 0.05
DYING_SHARE = 0.04
CONTROL_SHARE = 0.12
CELL_SPREAD = 0.4  # deviation of log depth between cells of one library
TYPE_CONCENTRATION = 80.0  # of the Dirichlet around the mean frequencies, per donor

# Modules that vary only within a part of the tree; all others vary in every cell.
LINEAGES = {
    "cytotoxicity": ("CD8-positive, alpha-beta T cell", "natural killer cell"),
    "naive state": ("T cell",),
    "antigen presentation": ("lymphocyte of B lineage", "mononuclear phagocyte"),
    "inflammation": ("mononuclear phagocyte",),
}


def draw_cells(design: DatasetDesign, n_cells: int, seed: int) -> pd.DataFrame:
    """The dataset's droplets in random order, one row each, with the columns of the truth.

    `library_scale` is the expected number of molecules of the (first) cell over all genes.
    """
    rng = named_generator(seed, "cells", design.name)
    donors = np.repeat(design.donors, apportion(n_cells, rng.uniform(0.7, 1.3, len(design.donors))))
    cells = pd.DataFrame({DONOR_ID: rng.permutation(donors)})
    cells[BATCH] = rng.choice(design.batches, n_cells)
    cells[CELL_TYPE] = UNKNOWN if design.is_screen else draw_types(cells[DONOR_ID], design, seed)
    cells[PERTURBATION] = draw_guides(n_cells, rng) if design.is_screen else NOT_APPLICABLE
    n_doublets, n_dying = round(DOUBLET_SHARE * n_cells), round(DYING_SHARE * n_cells)
    fate = rng.permutation(n_cells)
    cells[IS_DOUBLET] = fate < n_doublets
    cells[IS_DYING] = (fate >= n_doublets) & (fate < n_doublets + n_dying)
    cells[LIBRARY_SCALE] = design.depth * rng.lognormal(0, CELL_SPREAD, n_cells)
    cells.loc[cells[IS_DYING], LIBRARY_SCALE] *= rng.uniform(0.15, 0.5, n_dying)
    return cells


def draw_types(donors: pd.Series, design: DatasetDesign, seed: int) -> np.ndarray:
    """A type per cell, by the frequencies of its donor, which are the same in every dataset."""
    mean = np.array([kind.frequency for kind in CELL_TYPES.values()])
    rng = named_generator(seed, "types", design.name)
    types = np.empty(len(donors), dtype=object)
    for donor in design.donors:
        person = named_generator(seed, "frequencies", design.collection, donor)
        frequencies = person.dirichlet(TYPE_CONCENTRATION * mean)
        chosen = (donors == donor).to_numpy()
        types[chosen] = rng.choice(list(CELL_TYPES), chosen.sum(), p=frequencies)
    return types


def draw_guides(n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """A perturbation per cell, in equal numbers, and controls."""
    n_perturbed = len(PERTURBATIONS) - 1
    weights = np.r_[CONTROL_SHARE, np.full(n_perturbed, (1 - CONTROL_SHARE) / n_perturbed)]
    return rng.permutation(np.repeat(PERTURBATIONS, apportion(n_cells, weights)))


def draw_second_cells(cells: pd.DataFrame, design: DatasetDesign, seed: int) -> pd.DataFrame:
    """The second cell of each doublet, in their order: like a random healthy one of its library."""
    rng = named_generator(seed, "second cells", design.name)
    healthy = ~(cells[IS_DOUBLET] | cells[IS_DYING])
    libraries = cells.loc[cells[IS_DOUBLET], BATCH].to_numpy()
    partners = np.empty(len(libraries), dtype=int)
    for batch in design.batches:
        pool = np.flatnonzero(healthy & (cells[BATCH] == batch))
        partners[libraries == batch] = rng.choice(pool, (libraries == batch).sum())
    second = cells.loc[partners].reset_index(drop=True)
    second[LIBRARY_SCALE] = design.depth * rng.lognormal(0, CELL_SPREAD, len(second))
    return second


def draw_activities(
    cells: pd.DataFrame, modules: pd.Index, design: DatasetDesign, seed: int
) -> np.ndarray:
    """Activity of each module in each cell (n, m), of mean 0 and deviation 1 where it varies.

    Disease raises the interferon module, by the donor's severity and the type's response.
    """
    rng = named_generator(seed, "activities", design.name)
    activities = rng.normal(0, 1, (len(cells), len(modules)))
    for module, lineages in LINEAGES.items():
        active = [leaf for leaf in CELL_TYPES if set(lineages) & set(list_ancestors(leaf))]
        activities[~cells[CELL_TYPE].isin(active).to_numpy(), modules.get_loc(module)] = 0
    damage = rng.normal(2.2, 0.4, len(cells))
    activities[:, modules.get_loc(DAMAGE)] = np.where(cells[IS_DYING], damage, 0)
    activities[:, modules.get_loc("interferon")] += draw_severities(cells, design, seed)
    return activities


def draw_severities(cells: pd.DataFrame, design: DatasetDesign, seed: int) -> np.ndarray:
    """Rise of the interferon module by disease (n,); 0 in healthy donors."""
    severity = {
        donor: named_generator(seed, "severity", design.collection, donor).lognormal(0.5, 0.3)
        for donor in design.diseased
    }
    response = {name: kind.response for name, kind in CELL_TYPES.items()}
    rise = cells[DONOR_ID].map(severity) * cells[CELL_TYPE].map(response)
    return rise.fillna(0).to_numpy(dtype=float)


def list_ancestors(node: str) -> list[str]:
    """The path from a node of the tree to its root, itself included."""
    parent = TREE[node].parent
    return [node] + ([] if parent is None else list_ancestors(parent))
