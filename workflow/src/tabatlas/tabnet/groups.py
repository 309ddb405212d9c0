"""What an entry of a mask covers: a gene, a group of genes, or the columns of a covariate."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from tabatlas.tabnet.entries import GENES, Entries, GeneSets, drop_members


class MaskGroups(nn.Module):
    """Entries of a mask (q) over columns of the input (f), of which an entry covers some.

    Entries are the groups of genes, then each gene that is in none, then the covariates; columns
    are the genes, then those of the covariates. An entry's mask is divided alike over its columns,
    as in pytorch-tabnet; a gene of several groups gets a share of each. `column_e` are the columns
    of all entries one after the other, `entry_e` whose they are.
    """

    def __init__(
        self, n_genes: int, groups: Sequence[Sequence[int]], widths: Sequence[int]
    ) -> None:
        """`groups` name genes by number; `widths` are the covariates' columns."""
        super().__init__()
        assert all(len(set(group)) == len(group) > 0 for group in groups), "a gene counts once"
        grouped = {gene for group in groups for gene in group}
        alone = ([gene] for gene in range(n_genes) if gene not in grouped)
        others = (range(*ends) for ends in pairwise(accumulate(widths, initial=n_genes)))
        covered = [*map(sorted, groups), *alone, *others]
        column_e = torch.tensor([column for columns in covered for column in columns])
        width_q = torch.tensor([len(columns) for columns in covered])
        self.n_columns = n_genes + sum(widths)
        self.is_grouped = len(groups) > 0
        self.is_plain = torch.equal(column_e, torch.arange(len(width_q)))
        buffers = {
            "column_e": column_e,
            "entry_e": torch.arange(len(width_q)).repeat_interleave(width_q),
            "width_q": width_q,
            "first_q": width_q.cumsum(0) - width_q,
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)

    def __len__(self) -> int:
        """Number of a mask's entries."""
        return len(self.width_q)

    def hide(self, hidden_nf: Tensor) -> Tensor:
        """Entries (n, q) of which all columns are hidden: those cannot be selected."""
        if self.is_plain:
            return hidden_nf
        covered_ne = hidden_nf[:, self.column_e].float()
        count_nq = covered_ne.new_zeros(len(hidden_nf), len(self))
        return (count_nq.index_add(1, self.entry_e, covered_ne) == self.width_q).to(hidden_nf.dtype)

    def spread(self, mask_nq: Tensor, hidden_nf: Tensor) -> Tensor:
        """A mask over columns (n, f). A hidden one gets nothing, though its group be selected."""
        if self.is_plain:
            return mask_nq
        share_ne = (mask_nq / self.width_q)[:, self.entry_e]
        mask_nf = mask_nq.new_zeros(len(mask_nq), self.n_columns)
        return mask_nf.index_add(1, self.column_e, share_ne) * (1 - hidden_nf)

    def spread_entries(self, mask: Entries, hidden: GeneSets) -> Entries:
        """`spread` of what a mask selects; columns ascend, those of several groups repeatedly."""
        if self.is_plain:
            return mask
        entry = mask.gene.long()
        width = self.width_q[entry]
        # Where each begins in `column_e`, less where its columns begin among the result.
        shift = self.first_q[entry] - width.cumsum(0) + width
        # The host waits for their number.
        source = torch.arange(len(entry), device=entry.device).repeat_interleave(width)
        place = torch.arange(len(source), device=entry.device) + shift[source]
        row, column = mask.rows()[source], self.column_e[place]
        share = (mask.value / width).index_select(0, source)
        if self.is_grouped:
            order = (row * GENES + column).argsort()
            column, share = column[order], share.index_select(0, order)
        starts = torch.arange(mask.n_rows + 1, device=row.device)
        spread = Entries(torch.searchsorted(row, starts), column.int(), share)
        return drop_members(spread, hidden) if self.is_grouped else spread
