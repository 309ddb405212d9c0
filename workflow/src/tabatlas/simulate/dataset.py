"""One simulated dataset: its cells, its programs, its counts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.names import BATCH, CELL_TYPE, DONOR_ID
from tabatlas.simulate.cells import (
    IS_DOUBLET,
    PERTURBATION,
    SECOND_PERTURBATION,
    SECOND_TYPE,
    draw_activities,
    draw_cells,
    draw_second_cells,
)
from tabatlas.simulate.design import DatasetDesign
from tabatlas.simulate.draws import named_generator
from tabatlas.simulate.molecules import draw_counts, merge_doublets
from tabatlas.simulate.panel import choose_genes, choose_measured
from tabatlas.simulate.programs import (
    draw_base,
    draw_batches,
    draw_cell_line,
    draw_cell_types,
    draw_dispersions,
    draw_donors,
    draw_modules,
    draw_perturbations,
)
from tabatlas.simulate.settings import SimulateSettings


@dataclass(frozen=True)
class SimulatedDataset:
    """Counts (n, g) of the measured genes, and all that made them.

    `cells` has a row per droplet. `genes`, indexed by symbol, has `feature_id`, `base` (mean log
    expression) and `dispersion`. `effects` and `modules` have a row per gene, `activities` (n, m)
    a row per droplet (of a doublet: those of its first cell).
    """

    design: DatasetDesign
    cells: pd.DataFrame
    genes: pd.DataFrame
    counts: sp.csr_matrix
    effects: dict[str, pd.DataFrame]
    modules: pd.DataFrame
    activities: np.ndarray


def simulate_dataset(design: DatasetDesign, settings: SimulateSettings) -> SimulatedDataset:
    """Draw one dataset; equal settings give equal values."""
    seed = settings.seed
    genes = choose_genes(settings.n_genes, seed)
    blood = draw_base(genes.index, seed)
    base = draw_cell_line(blood, seed) if design.is_screen else blood
    genes = genes.assign(base=base, dispersion=draw_dispersions(genes.index, seed))
    effects = draw_effects(design, genes.index, seed)
    modules = draw_modules(genes.index, seed)

    cells = draw_cells(design, round(design.share * settings.n_cells), seed)
    second = draw_second_cells(cells, design, seed)
    droplets = pd.concat([cells, second], ignore_index=True)
    activities = draw_activities(droplets, modules.columns, design, seed)
    rng = named_generator(seed, "counts", design.name)
    counts = draw_counts(droplets, genes, effects, activities, modules, rng)
    counts = merge_doublets(counts, cells, rng)

    measured = choose_measured(design, genes.index, seed)
    return SimulatedDataset(
        design=design,
        cells=name_second_types(cells, second),
        genes=genes[measured],
        counts=counts[:, measured],
        effects={name: effect[measured] for name, effect in effects.items()},
        modules=modules[measured],
        activities=activities[: len(cells)],
    )


def draw_effects(design: DatasetDesign, genes: pd.Index, seed: int) -> dict[str, pd.DataFrame]:
    """The programs that a cell's columns choose from, by the name of the column."""
    batches = {BATCH: draw_batches(design, genes, seed)}
    if design.is_screen:
        return batches | {PERTURBATION: draw_perturbations(genes, seed)}
    return batches | {
        CELL_TYPE: draw_cell_types(genes, seed),
        DONOR_ID: draw_donors(design, genes, seed),
    }


def name_second_types(cells: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Add the type and the perturbation of each doublet's second cell; "" for single cells."""
    columns = {SECOND_TYPE: CELL_TYPE, SECOND_PERTURBATION: PERTURBATION}
    named = {name: np.full(len(cells), "", dtype=object) for name in columns}
    for name, column in columns.items():
        named[name][cells[IS_DOUBLET]] = second[column]
    return cells.assign(**named)
