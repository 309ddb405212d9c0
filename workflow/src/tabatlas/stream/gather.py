"""Compiled loops over the entries of cells. They release the GIL: threads read side by side."""

from collections.abc import Iterator

import numba
import numpy as np

loop = numba.njit(nogil=True, cache=True)

# A changed gene or count changes the sum: no product of a difference is 0 in 64 bits.
SHIFT_GENE, SHIFT_COUNT = 1, 0x9E3779B1


@loop
def sum_entries(gene, count):
    """Weighted sum of a row's entries: what tells that they are those that were written."""
    total = np.uint64(0)
    for i in range(len(gene)):
        total += np.uint64(gene[i] + SHIFT_GENE) * np.uint64(count[i] + SHIFT_COUNT)
    return total


@loop
def sum_rows(indptr, gene, count):
    """`sum_entries` of every row of a CSR matrix (n,) uint64."""
    total_n = np.empty(len(indptr) - 1, dtype=np.uint64)
    for row in range(len(total_n)):
        own = slice(indptr[row], indptr[row + 1])
        total_n[row] = sum_entries(gene[own], count[own])
    return total_n


@loop
def copy_values(values, target):
    """Copy values into an array of another type."""
    for i in range(len(values)):
        target[i] = values[i]


@loop
def copy_rows(target, check, to_gene, to_count, place, begin, gene, count):
    """Copy rows that begin at `begin` (m,) of `gene` and `count` to their `place` (m,).

    `target` (n + 1,) are the row pointers of what is written; `check` (n,) is what `sum_entries`
    must give of each of its rows. Returns the place of a row that differs, −1 if none does.
    """
    for i in range(len(place)):
        own = slice(target[place[i]], target[place[i] + 1])
        stored = slice(begin[i], begin[i] + own.stop - own.start)
        # What lies outside would be cut without a word.
        if stored.start < 0 or stored.stop < stored.start or stored.stop > len(gene):
            return place[i]
        if sum_entries(gene[stored], count[stored]) != check[place[i]]:
            return place[i]
        copy_values(gene[stored], to_gene[own])
        copy_values(count[stored], to_count[own])
    return -1


@loop
def copy_held(target, to_gene, to_count, place, begin, gene, count):
    """`copy_rows` of rows that were proven when they were taken up."""
    for i in range(len(place)):
        own = slice(target[place[i]], target[place[i] + 1])
        stored = slice(begin[i], begin[i] + own.stop - own.start)
        copy_values(gene[stored], to_gene[own])
        copy_values(count[stored], to_count[own])


@loop
def take_entries(row, gene, count, joinid, place_of_gene, begin, length, total, to, filled):
    """Take up entries (m,) as an experiment gives them, after `filled` that were taken before.

    `joinid` (n,) rises; `begin`, `length` and `total` (n,) say where each row's entries lie among
    `to` (genes, counts), how many were kept, and the sum of all counts. `place_of_gene` is −1 for
    a gene that is not kept. Returns how many entries `to` then holds; −1 where a row comes in two
    pieces, or was not asked for.
    """
    to_gene, to_count = to
    place = -1
    for i in range(len(row)):
        if place < 0 or joinid[place] != row[i]:
            place = np.searchsorted(joinid, row[i])
            if place == len(joinid) or joinid[place] != row[i]:
                return -1
            if total[place] == 0:
                begin[place] = filled
            elif begin[place] + length[place] != filled:
                return -1
        total[place] += count[i]
        own = place_of_gene[gene[i]]
        if own >= 0:
            to_gene[filled] = own
            to_count[filled] = count[i]
            filled += 1
            length[place] += 1
    return filled


def group_rows(owner_n: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each owner with the places (m,) at which it stands."""
    order = np.argsort(owner_n, kind="stable")
    owners, starts = np.unique(owner_n[order], return_index=True)
    return zip(owners.tolist(), np.split(order, starts[1:]), strict=True)
