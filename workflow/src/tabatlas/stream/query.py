"""Cells of a query, in its order: any file's genes brought onto those of a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from tabatlas import names
from tabatlas.stream.columns import Covariate
from tabatlas.stream.minibatch import Minibatch, choose_gene_type


@dataclass(frozen=True)
class QueryGenes:
    """How the f genes of a query lie on a model's.

    `selection` (f, g) is 1 where a query's gene is a model's one: several of one id are summed.
    `in_atlas` (f,) says which are genes of the atlas, over which a cell's counts are summed.
    """

    selection: sp.csr_matrix
    in_atlas: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """Which of the model's genes the query measured (g,) bool."""
        return np.asarray(self.selection.sum(axis=0)).ravel() > 0


class QuerySource:
    """Cells of a query; each block of counts (n, f) is a minibatch.

    `presence` (1, g) says which of the model's genes the query measured. Of the covariates of the
    network only `total_n` is known: levels are unknown (0), other numbers NaN.
    """

    def __init__(
        self,
        blocks: Iterable[sp.csr_matrix],
        genes: QueryGenes,
        covariates: Sequence[Covariate] = (),
    ) -> None:
        self.blocks, self.genes = blocks, genes
        self.presence = torch.from_numpy(genes.found[None])
        self.n_levels = sum(bool(one.levels) for one in covariates)
        self.numbers = [one.name for one in covariates if not one.levels]

    def iterate(self) -> Iterator[Minibatch]:
        """All cells, in the order of the query."""
        done = 0
        for counts in self.blocks:
            yield self.read(counts, done)
            done += counts.shape[0]

    def read(self, counts: sp.csr_matrix, first: int) -> Minibatch:
        """The cells of a block, of which the first has that place in the query."""
        n_cells = counts.shape[0]
        own = counts @ self.genes.selection
        own.sort_indices()
        total_n = np.rint(counts @ self.genes.in_atlas.astype(np.float64)).astype(np.int64)
        number_nj = np.full((n_cells, len(self.numbers)), np.nan, dtype=np.float32)
        number_nj[:, [name == names.TOTAL_N for name in self.numbers]] = total_n[:, None]
        return Minibatch(
            indptr=torch.from_numpy(own.indptr.astype(np.int64)),
            gene=torch.from_numpy(own.indices.astype(choose_gene_type(own.shape[1]))),
            count=torch.from_numpy(own.data.astype(np.float32)),
            total_n=torch.from_numpy(total_n),
            dataset=torch.zeros(n_cells, dtype=torch.int64),
            label=torch.full((n_cells,), -1, dtype=torch.int64),
            level=torch.zeros((n_cells, self.n_levels), dtype=torch.int64),
            number=torch.from_numpy(number_nj),
            joinid=torch.arange(first, first + n_cells),
        )
