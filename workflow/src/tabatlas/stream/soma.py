"""Cells straight from the sealed experiment, in sequence: for tests and predictions."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.errors import GeneMismatchError
from tabatlas.experiment import Experiment
from tabatlas.stream.columns import Covariate, encode_labels, encode_levels, take_numbers
from tabatlas.stream.minibatch import Minibatch

COLUMNS = (names.OBS_ID, names.TOTAL_N, names.CELL_TYPE, names.CELL_TYPE_ID)


class SomaSource:
    """Cells of an experiment, restricted to the genes of a model.

    `presence` (datasets, g) is the experiment's presence matrix on these genes; `cells` the table
    of the chosen cells in the order in which they come.
    """

    def __init__(
        self,
        experiment: Experiment,
        joinids: np.ndarray,
        genes: pd.Series,
        labels: Sequence[str] = (),
        covariates: Sequence[Covariate] = (),
    ) -> None:
        wanted = {one.name for one in covariates} - {names.DONOR}
        obs = experiment.read_cells([*COLUMNS, *sorted(wanted)]).set_index(names.JOINID)
        self.experiment = experiment
        self.cells = obs.loc[np.sort(joinids)].reset_index()
        self.positions = find_genes(experiment.read_var()[names.FEATURE_ID], genes)
        self.presence = torch.from_numpy(experiment.read_presence()[:, self.positions])
        self.dataset_n = self.cells["dataset"].to_numpy(np.int64)
        self.label_n = encode_labels(self.cells, labels)
        self.covariates = tuple(covariates)
        self.level_nk = encode_levels(self.cells, covariates)
        self.number_nj = take_numbers(self.cells, covariates)

    def iterate(self, batch_size: int) -> Iterator[Minibatch]:
        """All cells, by joinid."""
        for start in range(0, len(self.cells), batch_size):
            yield self.read(slice(start, start + batch_size))

    def read(self, rows: slice | np.ndarray) -> Minibatch:
        """The cells at places `rows` of the table."""
        joinid_n = self.cells[names.JOINID].to_numpy()[rows]
        counts = self.experiment.read_counts(joinid_n)[:, self.positions]
        return Minibatch(
            indptr=torch.from_numpy(counts.indptr.astype(np.int64)),
            gene=torch.from_numpy(counts.indices.astype(np.int32)),
            count=torch.from_numpy(counts.data.astype(np.float32)),
            total_n=torch.from_numpy(self.cells[names.TOTAL_N].to_numpy(np.int64)[rows].copy()),
            dataset=torch.from_numpy(self.dataset_n[rows]),
            label=torch.from_numpy(self.label_n[rows]),
            level=torch.from_numpy(self.level_nk[rows]),
            number=torch.from_numpy(self.number_nj[rows]),
            joinid=torch.from_numpy(joinid_n.copy()),
        )


def find_genes(atlas: pd.Series, genes: pd.Series) -> np.ndarray:
    """Positions of a model's genes among the experiment's. Raises `GeneMismatchError`."""
    positions = pd.Index(atlas).get_indexer(genes)
    missing = np.flatnonzero(positions < 0)
    if len(missing):
        raise GeneMismatchError(
            f"{len(missing)} of the model's {len(genes)} genes are not in the experiment (first: "
            f"{genes.iloc[missing[0]]}). It was made with another gene list; train on this one."
        )
    return positions
