"""Cells of a screen, in the atlas or outside it, in one form: units of one cell line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.experiment import Experiment
from tabatlas.split.perturbations import fold_perturbations

ATLAS, OUTSIDE = "atlas", "outside"
CONTROL_ID = names.NOT_APPLICABLE
COLUMNS = (
    names.DATASET_ID,
    names.TISSUE,
    names.TOTAL_N,
    names.PERTURBATION_ID,
    names.PERTURBATION_STRATEGY,
)


@dataclass(frozen=True)
class Unit:
    """The cells of one cell line of a screen.

    `genes` are the measured ones on which effects are scored, by Ensembl id; `expression` says
    whether the file holds counts; `id_n` is the perturbation of each cell, `CONTROL_ID` for a
    control; `read(rows)` gives log1p(CP10k) of cells as CSR (n, g); `folds` each perturbation's
    fold.
    """

    screen: str
    cell_line: str
    origin: str
    expression: str
    organism: str
    strategy: str
    genes: pd.Index
    id_n: np.ndarray
    read: Callable[[np.ndarray], sp.csr_matrix]
    folds: dict[str, int]

    @property
    def name(self) -> tuple[str, str]:
        """Screen and cell line: what a unit's draws are keyed by."""
        return self.screen, self.cell_line


def split_targets(perturbation: str) -> tuple[str, ...]:
    """The genes of a perturbation."""
    return tuple(perturbation.split(names.PERTURBATION_DELIMITER))


def find_atlas_units(
    experiment: Experiment, cells: pd.DataFrame, folds: pd.DataFrame, genes: pd.DataFrame
) -> Iterator[Unit]:
    """Units of the screens in the atlas, over the encoder's genes that their dataset measured.

    `cells` is `split/cells.parquet`: a cell's second copy is left out. The cell line is the
    tissue, as the schema has it.
    """
    obs = experiment.read_obs(COLUMNS).merge(cells[[names.JOINID, "reason"]], on=names.JOINID)
    strategy = obs[names.PERTURBATION_STRATEGY].astype(str)
    screened = obs[(strategy != names.NO_PERTURBATIONS) & (obs["reason"] != "duplicate")]
    atlas = experiment.read_var()[names.FEATURE_ID]
    positions = pd.Index(atlas).get_indexer(genes[names.FEATURE_ID])
    presence_mg = experiment.read_presence()[:, positions]
    fold_of = dict(zip(folds[names.PERTURBATION_ID], folds["fold"].astype(int), strict=True))
    for (screen, line), rows in screened.groupby([names.DATASET_ID, names.TISSUE], observed=True):
        measured = presence_mg[experiment.dataset_ids.index(str(screen))]
        own = genes[measured]
        id_n = rows[names.PERTURBATION_ID].astype(str).to_numpy()
        yield Unit(
            screen=str(screen),
            cell_line=str(line),
            origin=ATLAS,
            expression="counts",
            organism=experiment.about["organism"],
            strategy=name_strategy(rows[names.PERTURBATION_STRATEGY]),
            genes=pd.Index(own[names.FEATURE_ID]),
            id_n=id_n,
            read=read_experiment(experiment, rows, positions[measured]),
            folds={one: fold_of[one] for one in sorted(set(id_n) - {CONTROL_ID})},
        )


def read_experiment(
    experiment: Experiment, cells: pd.DataFrame, positions: np.ndarray
) -> Callable[[np.ndarray], sp.csr_matrix]:
    """A reader of log1p(CP10k) of these cells and genes, scaled by the sum over all genes."""
    joinid_n = cells[names.JOINID].to_numpy()
    total_n = cells[names.TOTAL_N].to_numpy(np.int64)

    def read(rows: np.ndarray) -> sp.csr_matrix:
        counts = experiment.read_counts(joinid_n[rows])[:, positions]
        return log1p_cp10k(counts, total_n[rows])

    return read


def find_file_units(
    screen: str, adata: ad.AnnData, n_folds: int, rng_of: Callable[[], np.random.Generator]
) -> Iterator[Unit]:
    """Units of a screen outside the atlas; each deals its own perturbations to folds."""
    obs = adata.obs
    screened = (obs[names.PERTURBATION_STRATEGY].astype(str) != names.NO_PERTURBATIONS).to_numpy()
    line_n = obs[names.CELL_LINE].astype(str).to_numpy()
    for line in sorted(set(line_n[screened])):
        rows = np.flatnonzero(screened & (line_n == line))
        cells = obs.iloc[rows]
        folds = fold_perturbations(cells, n_folds, rng_of())
        yield Unit(
            screen=screen,
            cell_line=line,
            origin=OUTSIDE,
            expression=str(adata.uns["expression"]),
            organism=str(adata.uns[names.ORGANISM]),
            strategy=name_strategy(cells[names.PERTURBATION_STRATEGY]),
            genes=pd.Index(adata.var_names),
            id_n=cells[names.PERTURBATION_ID].astype(str).to_numpy(),
            read=read_rows(adata.X, rows),
            folds=dict(zip(folds[names.PERTURBATION_ID], folds["fold"].tolist(), strict=True)),
        )


def read_rows(matrix: sp.csr_matrix, own: np.ndarray) -> Callable[[np.ndarray], sp.csr_matrix]:
    """A reader of some rows of a matrix in memory."""
    return lambda rows: matrix[own[rows]]


def name_strategy(strategies: pd.Series) -> str:
    """The one strategy of the perturbed cells; several are `unknown`."""
    found = set(strategies.astype(str)) - {names.CONTROL, names.NO_PERTURBATIONS}
    return found.pop() if len(found) == 1 else names.UNKNOWN
