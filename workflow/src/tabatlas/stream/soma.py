"""Cells straight from the sealed experiment: shuffled in the one order, or one after the other."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.errors import GeneMismatchError, IntegrityError
from tabatlas.experiment import Experiment
from tabatlas.stream.columns import WHOLE, Cells, Covariate, encode_cells
from tabatlas.stream.entries import EntryReader, Held
from tabatlas.stream.gather import copy_held, group_rows
from tabatlas.stream.minibatch import ENTRY_BYTES, Memory, Minibatch
from tabatlas.stream.order import Order, Plan, Share
from tabatlas.stream.prefetch import Reading, read_ahead
from tabatlas.stream.source import Source

# Blocks of 64 neighbors keep 98.9 % of the label entropy of single cells in an atlas that is half
# sorted, of 256 they would keep 94 %.
PLAN = Plan(block_cells=64, buffer_cells=16_384)
LABELED = (names.CELL_TYPE, names.CELL_TYPE_ID, names.TOTAL_N)
AT_ONCE = 4096  # cells of one read where they come one after the other


class SomaSource(Source):
    """Cells of an experiment, restricted to the genes of a model.

    `joinids` in any order are the stored order. `presence` (datasets, g) is the experiment's
    presence matrix on these genes. Every cell that is read is compared with its total in obs, so
    that none comes back empty or in part. Raises `IntegrityError` for what the manifest did not
    seal, `GeneMismatchError` for genes that the experiment does not have.
    """

    def __init__(
        self,
        experiment: Experiment,
        joinids: np.ndarray,
        genes: pd.Series,
        labels: Sequence[str] = (),
        covariates: Sequence[Covariate] = (),
        plan: Plan = PLAN,
        reading: Reading | None = None,
    ) -> None:
        self.experiment, self.plan, self.reading = experiment, plan, reading or Reading()
        wanted = {one.name for one in covariates}
        obs = experiment.read_cells([names.OBS_ID, *LABELED, *sorted(wanted - {names.DONOR})])
        self.obs = choose_rows(obs, joinids)
        coded = encode_cells(self.obs[[*WHOLE, names.CELL_TYPE, *sorted(wanted - set(WHOLE))]])
        self.cells, self.covariates = Cells(*coded, labels, covariates), tuple(covariates)
        positions = find_genes(experiment.read_var()[names.FEATURE_ID], genes)
        self.presence = torch.from_numpy(experiment.read_presence()[:, positions])
        self.reader = EntryReader(experiment, positions)
        self.n_genes = len(positions)

    def iterate(self, batch_size: int) -> Iterator[Minibatch]:
        """All cells, in stored order."""
        # Here the size of a read changes nothing: what memory there is decides.
        fitting = self.reading.bytes // (
            4 * int(self.experiment.entries_per_cell * ENTRY_BYTES) + 1
        )
        size = max(1, min(AT_ONCE, fitting) // batch_size) * batch_size
        stops = range(size, len(self) + size, size)
        memory = Memory(self.n_genes)
        windows = [np.arange(stop - size, min(stop, len(self))) for stop in stops]
        for rows, held in zip(windows, self.load_all(windows, size), strict=True):
            for start in range(0, len(rows), batch_size):
                own = rows[start : start + batch_size]
                yield self.deliver(self.gather(own, [held], memory))

    def shuffle(
        self, order: Order, epoch: int, first: int = 0, share: Share | None = None
    ) -> Iterator[Minibatch]:
        """The micro-batches of a share of each minibatch of one epoch, from number `first` on."""
        drawn, own = order.draw(epoch), share or Share()
        begin = drawn.find_buffers(first).start if first < order.n_minibatches else drawn.n_buffers
        coming = range(begin, drawn.n_buffers)
        loaded = self.load_all(map(drawn.read_buffer, coming), order.plan.most_cells)
        held: dict[int, Held] = {}
        memory = Memory(self.n_genes)
        for number, rows in enumerate(drawn.minibatches(first), first):
            needed = drawn.find_buffers(number)
            for one in [one for one in held if one not in needed]:
                self.reader.give_back(held.pop(one))
            held |= {one: next(loaded) for one in needed if one not in held}
            for part in own.cut(rows):
                yield self.deliver(self.gather(part, list(held.values()), memory))

    def load_all(self, windows: Iterable[np.ndarray], n_cells: int) -> Iterator[Held]:
        """The cells of each window of about `n_cells` rows, ahead of their use."""
        n_bytes = n_cells * self.experiment.entries_per_cell * ENTRY_BYTES
        # One thread: TileDB has its own. Two are held where a minibatch lies in both.
        n_ahead = self.reading.count_ahead("buffers", n_bytes, n_held=2)
        return read_ahead(self.load, windows, 1, min(n_ahead, 1))

    def read(self, rows: np.ndarray) -> Minibatch:
        """The cells at stored positions `rows`, in that order."""
        return self.gather(rows, [self.load(rows)], Memory(self.n_genes))

    def load(self, rows: np.ndarray) -> Held:
        """Take up the cells at stored positions `rows`, each once."""
        joinid_n, first_n = np.unique(self.joinid_n[rows], return_index=True)
        return self.reader.load(joinid_n, self.cells.columns[names.TOTAL_N][rows][first_n])

    def gather(self, rows: np.ndarray, held: Sequence[Held], memory: Memory) -> Minibatch:
        """The minibatch of rows that were taken up."""
        joinid_n = self.joinid_n[rows]
        owner_n, place_n = np.zeros((2, len(rows)), dtype=np.int64)
        n_found = 0
        for number, one in enumerate(held):
            place = np.minimum(np.searchsorted(one.joinid, joinid_n), len(one.joinid) - 1)
            own = one.joinid[place] == joinid_n
            owner_n[own], place_n[own] = number, place[own]
            n_found += own.sum()
        assert n_found == len(rows), "a row of no buffer that is held"
        length_n = np.zeros(len(rows), dtype=np.int64)
        for number, own in group_rows(owner_n):
            length_n[own] = held[number].length[place_n[own]]
        indptr, gene, count = memory.make_rows(length_n)
        for number, own in group_rows(owner_n):
            one = held[number]
            to = (indptr, gene.numpy(), count.numpy())
            copy_held(*to, own, one.begin[place_n[own]], one.gene, one.count)
        fields = self.cells.describe(rows)
        return Minibatch(indptr=torch.from_numpy(indptr), gene=gene, count=count, **fields)


def choose_rows(obs: pd.DataFrame, joinids: np.ndarray) -> pd.DataFrame:
    """The rows of these cells, in their order. Raises `IntegrityError` for one that is not there.

    joinids may have gaps: a row's number is not its joinid.
    """
    places = pd.Index(obs[names.JOINID]).get_indexer(joinids)
    missing = np.flatnonzero(places < 0)
    if len(missing):
        raise IntegrityError(
            f"{len(missing)} of {len(joinids)} cells are not in the experiment (first: "
            f"soma_joinid {joinids[missing[0]]}). Run `split` and what follows again."
        )
    return obs.iloc[places].reset_index(drop=True)


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
