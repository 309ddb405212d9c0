"""Cells × genes without the zeros: rows of (gene, value), and sets of genes that cells share."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tabatlas.tabnet import loops

GENES = 1 << 32  # more than there are: row · GENES + gene sorts as rows, and genes within them


class Entries(NamedTuple):
    """Compressed rows (CSR): cells with their expressed genes, or with those a mask selects."""

    indptr: Tensor  # (n + 1,) int64
    gene: Tensor  # (e,) int16 or int32, ascending within a row
    value: Tensor  # (e,)

    @property
    def n_rows(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    def rows(self) -> Tensor:
        """Row of each entry (e,) int64."""
        numbers = torch.arange(self.n_rows, device=self.indptr.device)
        return numbers.repeat_interleave(self.indptr.diff(), output_size=len(self.gene))

    def is_sorted(self) -> bool:
        """Whether genes ascend within every row, as all that reads them takes for granted."""
        is_start = torch.zeros(len(self.gene) + 1, dtype=torch.bool, device=self.gene.device)
        is_start[self.indptr] = True
        return bool((is_start[1:-1] | (self.gene[1:] > self.gene[:-1])).all())

    def slice(self, first: int, last: int) -> "Entries":
        """The entries of consecutive rows."""
        begin, end = self.indptr[first].item(), self.indptr[last].item()
        indptr = self.indptr[first : last + 1] - begin
        return Entries(indptr, self.gene[begin:end], self.value[begin:end])

    def take(self, chosen_n: Tensor) -> "Entries":
        """The entries of the rows where `chosen_n` (n,) is True."""
        kept = chosen_n[self.rows()]
        indptr = F.pad(self.indptr.diff()[chosen_n].cumsum(0), (1, 0))
        return Entries(indptr, self.gene[kept], self.value[kept])

    def keep(self, kept: Tensor) -> "Entries":
        """The entries where `kept` (e,) is True, of as many rows."""
        indptr = F.pad(kept.cumsum(0), (1, 0))[self.indptr]
        return Entries(indptr, self.gene[kept], self.value[kept])

    def to_dense(self, n_genes: int) -> Tensor:
        """All values (n, g); 0 where there is no entry."""
        dense_ng = self.value.new_zeros(self.n_rows, n_genes)
        dense_ng[self.rows(), self.gene.long()] = self.value
        return dense_ng


class GeneSets(NamedTuple):
    """A set of genes for each cell, of which there are few: what a dataset did not measure, say."""

    set_n: Tensor  # (n,) int64, the cell's set
    member_mg: Tensor  # (m, g) bool

    def compact(self) -> "GeneSets":
        """Without sets that no cell has."""
        used, set_n = torch.unique(self.set_n, return_inverse=True)
        return GeneSets(set_n, self.member_mg[used])

    def count(self) -> Tensor:
        """Sum over cells of the genes in their sets."""
        return self.member_mg.sum(1)[self.set_n].sum()

    def to_dense(self) -> Tensor:
        """Membership (n, g) of every cell."""
        return self.member_mg[self.set_n]


def from_dense(x_ng: Tensor) -> Entries:
    """The entries of a dense matrix (n, g) that are not 0."""
    row, gene = x_ng.nonzero(as_tuple=True)
    indptr = torch.zeros(len(x_ng) + 1, dtype=torch.int64, device=x_ng.device)
    indptr[1:] = torch.bincount(row, minlength=len(x_ng)).cumsum(0)
    return Entries(indptr, gene.int(), x_ng[row, gene])


def drop_members(x: Entries, sets: GeneSets) -> Entries:
    """The entries of genes that are not in their cell's set; on a GPU the others are 0 instead."""
    row = x.rows()
    kept = ~sets.member_mg[sets.set_n[row], x.gene.long()]
    if not loops.can_run(kept):
        # The host would wait for their number.
        return x._replace(value=x.value * kept)
    return x.keep(kept)


def append_columns(x: Entries, columns_nc: Tensor, first: int) -> Entries:
    """Columns as entries of every row, numbered from `first`, which is after all genes."""
    n_columns = columns_nc.shape[1]
    if not n_columns:
        return x
    number_c = torch.arange(n_columns, device=x.gene.device, dtype=torch.int32)
    indptr = x.indptr + torch.arange(x.n_rows + 1, device=x.gene.device) * n_columns
    own = torch.arange(len(x.gene), device=x.gene.device) + x.rows() * n_columns
    added = (indptr[1:, None] - n_columns + number_c).flatten()
    number = (first + number_c).repeat(x.n_rows)
    gene = number.new_empty(len(own) + len(added))
    gene = gene.index_copy(0, own, x.gene.int()).index_copy(0, added, number)
    value = x.value.new_empty(len(gene)).index_copy(0, own, x.value)
    return Entries(indptr, gene, value.index_copy(0, added, columns_nc.flatten()))


def look_up(among: Entries, indptr: Tensor, gene: Tensor) -> Tensor:
    """Values that other entries have at these rows and genes (e,), 0 where none; differentiable."""
    place = match(among, indptr, gene)
    # "Nowhere" is the zero at the end.
    return torch.cat([among.value, among.value.new_zeros(1)]).index_select(0, place)


def match(among: Entries, indptr: Tensor, gene: Tensor) -> Tensor:
    """Where these rows and genes stand among e' other entries (e,) int64; e' where they do not."""
    if loops.can_run(gene):
        place = torch.empty(len(gene), dtype=torch.int64)
        arrays = indptr, gene, among.indptr, among.gene, place
        loops.share(loops.match_rows, len(indptr) - 1, *(one.numpy() for one in arrays))
        return place
    keys = among.rows() * GENES + among.gene
    wanted = Entries(indptr, gene, gene).rows() * GENES + gene
    place = torch.searchsorted(keys, wanted)
    found = F.pad(keys, (0, 1), value=-1)[place] == wanted
    return torch.where(found, place, len(keys))


def unite(parts: Sequence[Entries]) -> tuple[Tensor, Tensor]:
    """Row pointers and genes that occur in any of several patterns of the same rows."""
    if len(parts) == 1:
        return parts[0].indptr, parts[0].gene
    keys = torch.cat([part.rows() * GENES + part.gene for part in parts]).unique()
    starts = torch.arange(parts[0].n_rows + 1, device=keys.device) * GENES
    return torch.searchsorted(keys, starts), (keys % GENES).int()
