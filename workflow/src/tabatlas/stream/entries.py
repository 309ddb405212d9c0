"""Take up cells from the experiment into memory: the entries of a model's genes, proven whole."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from tabatlas.errors import IntegrityError
from tabatlas.stream.gather import DAMAGED, IN_PIECES, take_entries
from tabatlas.stream.minibatch import choose_gene_type

if TYPE_CHECKING:  # a pack is read, and written, where there is no TileDB
    from tabatlas.experiment import Experiment


@dataclass(frozen=True)
class Held:
    """Cells in memory: `joinid` (n,) rises; a row's entries begin at `begin` of gene and count."""

    joinid: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    gene: np.ndarray
    count: np.ndarray


class EntryReader:
    """Reads cells of an experiment, restricted to the genes at `positions` (g,).

    The sum of every cell over all genes is compared with its total in obs, so that none comes back
    empty or in part: an experiment that was written to in part reads as zeros without a word.
    """

    def __init__(self, experiment: "Experiment", positions: np.ndarray) -> None:
        self.experiment = experiment
        kind = choose_gene_type(len(positions))
        self.place_of_gene = np.full(experiment.counts.shape[1], -1, dtype=kind)
        self.place_of_gene[positions] = np.arange(len(positions))
        self.rooms: deque[Room] = deque()

    def give_back(self, held: Held) -> None:
        """Let what is read next lie where these cells lie: nobody may look at them again.

        Memory of this size comes new from the system each time, page by page: a tenth of the time.
        """
        self.rooms.append(Room(held.gene, held.count))

    def load(self, joinid_n: np.ndarray, total_n: np.ndarray) -> Held:
        """The cells of rising joinids with their totals. Raises `IntegrityError`."""
        held, found_n = self.take(joinid_n) or self.sort(joinid_n)
        wrong = np.flatnonzero(found_n != total_n)
        if len(wrong):
            raise IntegrityError(
                f"the cell with soma_joinid {joinid_n[wrong[0]]}: {found_n[wrong[0]]} molecules in "
                f"X, {total_n[wrong[0]]} in obs. The experiment is damaged or was written to after "
                "it was sealed; delete it and run `tabatlas ingest` again."
            )
        return held

    def take(self, joinid_n: np.ndarray) -> tuple[Held, np.ndarray] | None:
        """Cells and the sum of all their counts; None where rows come in several pieces."""
        begin, length, total = np.zeros((3, len(joinid_n)), dtype=np.int64)
        room, filled = self.find_room(len(joinid_n)), 0
        for row, gene, count in self.experiment.iterate_entries(joinid_n):
            to = room.reserve(filled, len(row))
            known = (joinid_n, self.place_of_gene, begin, length, total)
            filled = take_entries(row, gene, count, *known, to, filled)
            if filled == DAMAGED:
                raise IntegrityError(
                    f"{self.experiment.soma.uri}: X gives genes or cells that it does not have. "
                    "The experiment is damaged; delete it and run `tabatlas ingest` again."
                )
            if filled == IN_PIECES:
                return None
        return Held(joinid_n, begin, length, room.gene, room.count), total

    def find_room(self, n_cells: int) -> "Room":
        """Room for cells: what was given back, or new."""
        try:
            return self.rooms.popleft()
        except IndexError:
            # Pages that nobody writes to take no memory.
            n_entries = int(1.5 * n_cells * self.experiment.entries_per_cell)
            return Room.make(n_entries, self.place_of_gene.dtype)

    def sort(self, joinid_n: np.ndarray) -> tuple[Held, np.ndarray]:
        """As `take`, for rows that were written in several pieces."""
        counts = self.experiment.read_counts(joinid_n)
        total_n = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
        place = self.place_of_gene[counts.indices]
        pointers = np.concatenate([[0], np.cumsum(place >= 0)])[counts.indptr]
        gene, count = place[place >= 0], counts.data[place >= 0]
        return Held(joinid_n, pointers[:-1], np.diff(pointers), gene, count), total_n


@dataclass
class Room:
    """Two arrays that grow: genes and counts of which nobody knows how many come."""

    gene: np.ndarray
    count: np.ndarray

    @classmethod
    def make(cls, n_entries: int, gene_type: np.dtype) -> Self:
        """Room for so many entries."""
        return cls(np.empty(n_entries, gene_type), np.empty(n_entries, np.int32))

    def reserve(self, filled: int, n_more: int) -> tuple[np.ndarray, np.ndarray]:
        """The arrays with room for more entries after those that are filled."""
        if filled + n_more > len(self.gene):
            larger = Room.make((filled + n_more) * 5 // 4, self.gene.dtype)
            larger.gene[:filled], larger.count[:filled] = self.gene[:filled], self.count[:filled]
            self.gene, self.count = larger.gene, larger.count
        return self.gene, self.count
