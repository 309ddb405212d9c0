"""Counts of a file brought onto the atlas's genes."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas.errors import CountsError, GeneMismatchError
from tabatlas.normalize.align import align_genes, find_lost

ATLAS = pd.Index(["D", "A", "C", "B"])
COUNTS = np.array([[1, 20, 300, 4000, 0], [0, 0, 5, 0, 60_000]], dtype=np.float32)


def align(feature_ids: list[str], counts: np.ndarray = COUNTS) -> sp.csr_matrix:
    names = [f"own{number}" for number in range(len(feature_ids))]
    matrix = sp.csr_matrix(counts)
    return align_genes(matrix, pd.Series(feature_ids, index=names), ATLAS, "set1.h5ad")


def test_columns_are_the_atlas_genes_in_their_order():
    aligned = align(["A", "B", "C", "X", ""])
    assert aligned.toarray().tolist() == [[0, 1, 300, 20], [0, 0, 5, 0]]
    assert aligned.dtype == np.int32


def test_columns_of_one_gene_are_summed():
    assert align(["A", "B", "A", "A", "D"]).toarray().tolist() == [
        [0, 4301, 0, 20],
        [60_000, 5, 0, 0],
    ]


def test_the_result_is_canonical():
    aligned = align(["B", "A", "D", "A", "A"])
    assert aligned.has_canonical_format
    assert (aligned.data > 0).all()


def test_the_source_is_not_changed():
    matrix = sp.csr_matrix(COUNTS)
    align_genes(matrix, pd.Series(list("ABCDX")), ATLAS, "set1.h5ad")
    assert (matrix.toarray() == COUNTS).all()


def test_a_cell_may_end_without_any_count():
    assert align(["A", "B", "X", "X", "X"]).toarray().tolist() == [[0, 1, 0, 20], [0, 0, 0, 0]]


def test_no_gene_of_the_atlas_is_an_error_that_shows_both_sides():
    with pytest.raises(GeneMismatchError, match=r"set1.h5ad: none of its 5 .* own0.* D\)") as error:
        align(["X", "Y", "Z", "", ""])
    assert error.value.exit_code == 3


def test_a_sum_beyond_the_range_of_a_count_is_an_error():
    with pytest.raises(CountsError, match=r"set1.h5ad.*3e\+09|3000000000"):
        align(["A", "A", "B", "C", "D"], np.array([[2e9, 1e9, 0, 0, 0]], dtype=np.float32))


def test_lost_genes_are_those_outside_the_atlas():
    lost = find_lost(pd.Series(["A", "X", "", "A", "D"]), ATLAS)
    assert lost.tolist() == [False, True, True, False, False]
