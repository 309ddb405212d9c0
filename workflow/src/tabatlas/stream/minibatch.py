"""One minibatch of cells, as every source yields it, and its way to a dense tensor."""

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

TARGET_SUM = 1e4
ENTRY_BYTES = 8  # int32 gene and float32 count; 6 where genes are int16


@dataclass(frozen=True)
class Minibatch:
    """n cells in compressed rows. All tensors lie on one device.

    `indptr` (n + 1,) int64, `gene` (entries,) int16 or int32 and `count` (entries,) float32 hold
    the counts, genes ascending within a cell; `total_n` (n,) is the sum over all atlas genes, also
    of those that were not loaded; `dataset` (n,) is the row of the presence matrix; `label` (n,)
    the class, −1 where unlabelled; `level` (n, k) and `number` (n, j) are the covariates that the
    source was asked for, a level 0 where unknown; `joinid` (n,) names the cells within the
    experiment.
    """

    indptr: Tensor
    gene: Tensor
    count: Tensor
    total_n: Tensor
    dataset: Tensor
    label: Tensor
    level: Tensor
    number: Tensor
    joinid: Tensor

    def __len__(self) -> int:
        return len(self.total_n)

    def to(self, device: torch.device) -> Self:
        """The same minibatch on `device`; from pinned memory the copy to a GPU does not block."""
        # Back to the CPU it must: nothing there would wait for what has not arrived.
        waits = device.type == "cpu"
        return self.map(lambda tensor: tensor.to(device, non_blocking=not waits))

    def pin(self) -> Self:
        """The same minibatch in memory from which a GPU fetches by itself."""
        return self.map(Tensor.pin_memory)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The minibatch with each of its tensors changed."""
        return type(self)(**{one.name: change(getattr(self, one.name)) for one in fields(self)})

    def normalize(self) -> Tensor:
        """log1p(CP10k) of the entries, float32: the twin of `counts.log1p_cp10k`."""
        factor_n = torch.where(self.total_n > 0, self.total_n / TARGET_SUM, 1.0).float()
        factor = factor_n.repeat_interleave(self.indptr.diff(), output_size=len(self.count))
        return torch.log1p(self.count / factor)

    def densify(self, n_genes: int) -> Tensor:
        """log1p(CP10k) of the loaded genes, (n, g)."""
        return self.scatter(self.normalize(), n_genes)

    def scatter(self, values: Tensor, n_genes: int) -> Tensor:
        """Values of the entries as a dense (n, g) float32; 0 where there is no entry."""
        row = torch.arange(len(self), device=self.gene.device)
        dense_ng = torch.zeros(len(self), n_genes, device=self.gene.device)
        # Genes within a row are unique, so no two writes meet and the result is deterministic.
        dense_ng[row.repeat_interleave(self.indptr.diff()), self.gene.long()] = values
        return dense_ng

    def to_csr(self, n_genes: int) -> sp.csr_matrix:
        """Raw counts (n, g) of a minibatch on the CPU, for what is not torch."""
        arrays = (self.count.numpy(), self.gene.numpy(), self.indptr.numpy())
        return sp.csr_matrix(arrays, shape=(len(self), n_genes))


def choose_gene_type(n_genes: int) -> type[np.signedinteger]:
    """The smaller type that holds every gene's place: what a minibatch costs is its bytes.

    Signed, for torch has few operations for uint16.
    """
    return np.int16 if n_genes <= 1 << 15 else np.int32


class Memory:
    """Arrays that are used again when no tensor holds them any more.

    Memory of this size comes new from the system each time, page by page, wherever a thread asks
    for it: as much work as all the rest of a minibatch.
    """

    def __init__(self, n_genes: int) -> None:
        self.kinds = (choose_gene_type(n_genes), np.float32)
        self.free: dict[type, deque[np.ndarray]] = {kind: deque() for kind in self.kinds}

    def take(self, n_entries: int, kind: type) -> Tensor:
        """A tensor (n_entries,) of any content."""
        free = self.free[kind]
        try:  # several threads take: none may look before it takes
            array = free.popleft()
        except IndexError:
            array = np.empty(0, kind)
        if len(array) < n_entries:
            array = np.empty(n_entries * 5 // 4, kind)
        view = array[:n_entries]
        # The tensor holds the view, and so does every tensor that shares its memory.
        weakref.finalize(view, free.append, array).atexit = False
        return torch.from_numpy(view)

    def make_rows(self, length_n: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
        """Row pointers (n + 1,) of rows of these lengths, and room for their genes and counts."""
        indptr = np.concatenate([[0], np.cumsum(length_n)])
        gene, count = (self.take(int(indptr[-1]), kind) for kind in self.kinds)
        return indptr, gene, count
