"""The digest of a normalized file is that of its content."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas.counts import read_counts, write_h5ad
from tabatlas.names import CELL_TYPE, MEASURED, TOTAL_N
from tabatlas.normalize.digests import CountsDigest, digest_cells, digest_genes


def make_adata() -> ad.AnnData:
    obs = pd.DataFrame(
        {CELL_TYPE: pd.Categorical(["B", "T", "T"]), TOTAL_N: [3, 0, 9]},
        index=["set1:a", "set1:b", "set1:c"],
    )
    var = pd.DataFrame({MEASURED: [True, True, False]}, index=["G1", "G2", "G3"])
    counts = sp.csr_matrix(np.array([[1, 2, 0], [0, 0, 0], [9, 0, 0]], dtype=np.int32))
    return ad.AnnData(counts, obs, var)


def digest_whole(adata: ad.AnnData) -> str:
    """The digest of an AnnData in memory."""
    counts = CountsDigest()
    counts.add(adata.X)
    return digest_cells(adata, counts)


def change_count(adata: ad.AnnData) -> None:
    adata.X.data[0] += 1


def move_count(adata: ad.AnnData) -> None:
    adata.X.indices[-1] = 1


def move_count_to_next_cell(adata: ad.AnnData) -> None:
    adata.X.indptr[1] -= 1


def relabel_cell(adata: ad.AnnData) -> None:
    adata.obs[CELL_TYPE] = adata.obs[CELL_TYPE].cat.rename_categories({"B": "NK"})


def rename_cell(adata: ad.AnnData) -> None:
    adata.obs_names = ["set1:a", "set1:b", "set1:d"]


def change_number(adata: ad.AnnData) -> None:
    adata.obs[TOTAL_N] = [3, 1, 9]


def measure_gene(adata: ad.AnnData) -> None:
    adata.var[MEASURED] = True


@pytest.mark.parametrize(
    "change",
    [
        change_count,
        move_count,
        move_count_to_next_cell,
        relabel_cell,
        rename_cell,
        change_number,
        measure_gene,
    ],
)
def test_any_change_of_content_changes_the_digest(change: Callable[[ad.AnnData], None]):
    adata = make_adata()
    change(adata)
    assert digest_whole(adata) != digest_whole(make_adata())


def test_the_form_of_the_file_does_not_change_the_digest(tmp_path):
    adata = make_adata()
    adata.obs = adata.obs[[TOTAL_N, CELL_TYPE]]
    adata.obs[CELL_TYPE] = adata.obs[CELL_TYPE].cat.set_categories(["T", "B", "NK"])
    adata.X.indptr, adata.X.indices = (
        one.astype(np.int64) for one in (adata.X.indptr, adata.X.indices)
    )
    assert digest_whole(adata) == digest_whole(make_adata())
    write_h5ad(adata, tmp_path / "a.h5ad")
    again = read_counts(tmp_path / "a.h5ad")
    again.X = again.X.astype(np.int32)
    assert digest_whole(again) == digest_whole(adata)


def test_the_order_of_genes_is_part_of_their_digest():
    assert digest_genes(pd.Index(["A", "B"])) != digest_genes(pd.Index(["B", "A"]))
    assert digest_genes(pd.Index(["A", "B"])) != digest_genes(pd.Index(["AB"]))
