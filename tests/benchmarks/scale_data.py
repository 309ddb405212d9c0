"""Cells for the benchmark of scale: the simulator's programs, drawn library by library.

`tabatlas simulate` draws a rate for each gene of each cell, 19 billion for a million cells. Here
cells of one kind share their rates and each molecule is drawn for itself; the programs of types,
donors, libraries, modules and perturbations are the simulator's own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from tabatlas.h5ad import write_blocks
from tabatlas.names import BATCH, ORGANISM
from tabatlas.simulate.cells import (
    IS_DOUBLET,
    IS_DYING,
    LIBRARY_SCALE,
    draw_cells,
    draw_second_cells,
)
from tabatlas.simulate.dataset import SimulatedDataset, draw_effects
from tabatlas.simulate.design import ASSAYS, DatasetDesign, number_people
from tabatlas.simulate.design import ORGANISM as HUMAN
from tabatlas.simulate.draws import named_generator
from tabatlas.simulate.files import describe_cells, name_genes
from tabatlas.simulate.panel import choose_genes
from tabatlas.simulate.programs import DAMAGE, draw_base, draw_cell_line, draw_modules

N_DATASETS, N_GENES, SEED = 8, 19_000, 0
LIBRARY = 9_500  # cells, at most
DEPTH = 1_300  # median molecules per cell
STATE = "state"  # the module that is active in a cell
SHARED = 0.75  # of two cells' molecules a doublet keeps


def design_datasets(n_cells: int) -> list[DatasetDesign]:
    """Eight datasets of equal size with donors of their own; the last is a perturbation screen."""
    n_batches = -(-n_cells // (N_DATASETS * LIBRARY))
    return [
        DatasetDesign(
            name=f"scale_{number}",
            collection=f"scale_{number}",
            share=1 / N_DATASETS,
            assay=list(ASSAYS)[number % len(ASSAYS)],
            depth=DEPTH,
            n_batches=n_batches,
            donors=("K-562",) if number == N_DATASETS else number_people(1, 8),
            diseased=() if number == N_DATASETS else number_people(1, 3),
            is_screen=number == N_DATASETS,
            gene_names="ensembl",
        )
        for number in range(1, N_DATASETS + 1)
    ]


def write_dataset(design: DatasetDesign, n_cells: int, path: Path) -> None:
    """Write one dataset as a user's h5ad; only one library is in memory at a time."""
    genes = choose_genes(N_GENES, SEED)
    base = draw_base(genes.index, SEED)
    base = draw_cell_line(base, SEED) if design.is_screen else base
    modules = draw_modules(genes.index, SEED)
    # Twice its deviation: what a cell in the midst of a program shows.
    effects = draw_effects(design, genes.index, SEED) | {STATE: 2 * modules}
    cells = draw_cells(design, round(design.share * n_cells), SEED)
    cells = cells.sort_values(BATCH, kind="stable", ignore_index=True)
    rng = named_generator(SEED, "scale", design.name)
    second = draw_second_cells(cells, design, SEED).set_index(cells.index[cells[IS_DOUBLET]])
    with write_blocks(path, N_GENES, np.float32) as file:
        for _, library in cells.groupby(BATCH):
            joined = second.loc[second.index.intersection(library.index)]
            file.append(draw_library(library, joined, base, effects, rng))
        drawn = SimulatedDataset(
            design, cells, genes, sp.csr_matrix((0, 0)), {}, modules, np.empty(0)
        )
        obs, var = describe_cells(drawn, SEED), name_genes(genes, design, SEED)
        file.finish(AnnData(obs=obs, var=var, uns={ORGANISM: HUMAN}))


def draw_library(
    cells: pd.DataFrame,
    second: pd.DataFrame,
    base: pd.Series,
    effects: dict[str, pd.DataFrame],
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """Counts (n, g) of the cells of a library; `second` are those of its doublets, by index."""
    droplets = pd.concat([cells, second])
    places = cells.index.get_indexer(droplets.index)
    shared = np.isin(places, cells.index.get_indexer(second.index))
    scale = droplets[LIBRARY_SCALE].to_numpy() * np.where(shared, SHARED, 1)
    n_molecules = rng.poisson(scale)
    states = effects[STATE].columns.drop(DAMAGE)
    state = np.where(droplets[IS_DYING], DAMAGE, rng.choice(states, len(droplets)))
    kinds = droplets.assign(**{STATE: state})
    rows, columns = [], []
    for _, kind in kinds.groupby(list(effects), sort=True).indices.items():
        log_rate = base.to_numpy().copy()
        for column, effect in effects.items():
            log_rate += effect[kinds[column].iloc[kind[0]]].to_numpy()
        cumulative = np.cumsum(np.exp(log_rate))
        own = n_molecules[kind]
        drawn = rng.random(own.sum()) * cumulative[-1]
        columns.append(np.searchsorted(cumulative, drawn, side="right").astype(np.int32))
        rows.append(np.repeat(places[kind], own).astype(np.int32))
    row, column = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), np.float32)
    return sp.csr_matrix((ones, (row, column)), (len(cells), len(base)))


def write_atlas(n_cells: int, folder: Path) -> list[dict[str, str]]:
    """Write what is not there yet; return the rows of the dataset table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for design in design_datasets(n_cells):
        path = folder / f"{design.name}.h5ad"
        if not path.exists():
            write_dataset(design, n_cells, path)
        rows.append({"dataset_id": design.name, "path": str(path)})
    return rows
