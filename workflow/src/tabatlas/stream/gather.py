"""Compiled loops over the entries of cells. They release the GIL: threads read side by side."""

from collections.abc import Iterator

import numba
import numpy as np

loop = numba.njit(nogil=True, cache=True)

IN_PIECES, DAMAGED = -1, -2

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
def find_end(row, start):
    """The place after the last of the equal values that begin at `start`."""
    stop = start
    # Blocks first: a loop that may end at each step can't be vectorized.
    while stop + 64 <= len(row):
        block = row[stop : stop + 64]
        differs = 0
        for i in range(64):
            differs |= block[i] ^ row[start]
        if differs:
            break
        stop += 64
    while stop < len(row) and row[stop] == row[start]:
        stop += 1
    return stop


@loop
def find_largest(values):
    """The largest value; a negative one is larger than any other."""
    largest = np.uint64(0)
    for i in range(len(values)):
        largest = max(largest, np.uint64(values[i]))
    return largest


@loop
def keep_entries(gene, count, place_of_gene, to_gene, to_count):
    """Copy the entries of genes that have a place (not −1) in the model; return their number."""
    kept = np.uint64(0)
    for i in range(len(gene)):
        place = place_of_gene[np.uint64(gene[i])]
        # Written in any case, and over again where it is not kept: a branch would cost more.
        to_gene[kept] = place
        to_count[kept] = count[i]
        kept += np.uint64(place >= 0)
    return np.int64(kept)


@loop
def take_entries(row, gene, count, joinid, place_of_gene, begin, length, total, to, filled):
    """Take up entries (m,) as an experiment gives them, after `filled` that were taken before.

    `joinid` (n,) rises; `begin`, `length` and `total` (n,) say where each row's entries lie among
    `to` (genes, counts), how many were kept, and the sum of all counts. `place_of_gene` is −1 for
    a gene that is not kept. Returns how many entries `to` then holds; `IN_PIECES` where a row
    comes in pieces apart, `DAMAGED` where a gene or a row is none of those that there are.
    """
    to_gene, to_count = to
    start = 0
    if find_largest(gene) >= len(place_of_gene):
        return DAMAGED
    while start < len(row):
        place = np.searchsorted(joinid, row[start])
        if place == len(joinid) or joinid[place] != row[start]:
            return DAMAGED
        if length[place] == 0:
            begin[place] = filled
        elif begin[place] + length[place] != filled:
            return IN_PIECES
        own = slice(start, find_end(row, start))
        into = (to_gene[filled:], to_count[filled:])
        kept = keep_entries(gene[own], count[own], place_of_gene, *into)
        length[place] += kept
        total[place] += count[own].sum()
        filled += kept
        start = own.stop
    return filled


def group_rows(owner_n: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each owner with the places (m,) at which it stands."""
    order = np.argsort(owner_n, kind="stable")
    owners, starts = np.unique(owner_n[order], return_index=True)
    return zip(owners.tolist(), np.split(order, starts)[1:], strict=True)
