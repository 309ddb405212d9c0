"""h5ad files in blocks: the same as in one piece, wherever the blocks end."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from foreign import make_foreign, replace_array, write_foreign
from tabatlas import blocks, h5ad
from tabatlas.counts import read_counts, write_h5ad
from tabatlas.h5ad import CHUNK, read_axes, read_blocks, write_blocks

LABELS = {"cell_type": ["B", "T"] * 4}


def store(form: type, counts: np.ndarray, path: Path) -> Path:
    """Write counts (n, g) as `form` stores them."""
    return write_foreign(path, ad.AnnData(form(counts.astype(np.float32))))


def list_pieces(counts: sp.csr_matrix, n_rows: int) -> list[sp.csr_matrix]:
    """The rows in pieces."""
    return [counts[first : first + n_rows] for first in range(0, counts.shape[0], n_rows)]


def write_pieces(path: Path, adata: ad.AnnData, n_rows: int) -> Path:
    """Write an AnnData in pieces."""
    with write_blocks(path, adata.n_vars, np.float32) as file:
        for counts in list_pieces(adata.X, n_rows):
            file.append(counts)
        file.finish(ad.AnnData(obs=adata.obs, var=adata.var, uns=adata.uns))
    return path


@pytest.mark.parametrize("most", [1, 7, 50, 1 << 22])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_rows_are_the_same_however_they_are_stored_and_divided(form, most, tmp_path, monkeypatch):
    counts = np.random.default_rng(0).poisson(0.7, (23, 11))
    counts[4:7] = 0
    path = store(form, counts, tmp_path / "a.h5ad")
    monkeypatch.setattr(blocks, "BLOCK", most)
    monkeypatch.setattr(blocks, "PASS_BLOCKS", 2)
    found = list(read_blocks(path))
    starts, sizes = [start for start, _ in found], [one.shape[0] for _, one in found]
    assert starts == [0, *np.cumsum(sizes)[:-1]]
    assert (len(found) > 1) == (most < counts.size)
    assert all(one.has_canonical_format and (one.data > 0).all() for _, one in found)
    np.testing.assert_array_equal(sp.vstack([one for _, one in found]).toarray(), counts)
    within = [one.toarray() for _, one in read_blocks(path, first=3, stop=20)]
    np.testing.assert_array_equal(np.concatenate(within), counts[3:20])


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
def test_entries_of_one_place_are_summed(form, tmp_path):
    once = form(np.array([[0, 3, 0], [1, 0, 2]], dtype=np.float32))
    path = write_foreign(tmp_path / "a.h5ad", ad.AnnData(once))
    replace_array(path, "X/data", np.repeat(once.data, 2))
    replace_array(path, "X/indices", np.repeat(once.indices, 2))
    replace_array(path, "X/indptr", 2 * once.indptr)
    ((_, found),) = read_blocks(path)
    np.testing.assert_array_equal(found.toarray(), 2 * once.toarray())
    assert found.nnz == 3


def test_a_file_written_in_blocks_holds_what_anndata_writes(tmp_path):
    adata = make_foreign(**LABELS)
    adata.uns["organism"] = "Homo sapiens"
    write_h5ad(adata, tmp_path / "whole.h5ad")
    write_pieces(tmp_path / "blocks.h5ad", adata, 3)
    with h5py.File(tmp_path / "whole.h5ad") as one, h5py.File(tmp_path / "blocks.h5ad") as other:
        assert list_content(one) == list_content(other)
    again = ad.read_h5ad(tmp_path / "blocks.h5ad")
    assert (again.X != adata.X).nnz == 0
    assert again.obs.equals(adata.obs)


def list_content(file: h5py.File) -> dict[str, object]:
    """All values, types, attributes and compressions of an HDF5 file, by name."""
    found: dict[str, object] = {"/": describe_attributes(file)}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found[name] = describe_attributes(item)
        if isinstance(item, h5py.Dataset):
            kind = item.dtype, item.shape, item.maxshape, item.compression, item.compression_opts
            found[name] = (found[name], kind, np.asarray(item[()]).tolist())

    file.visititems(note)
    return found


def describe_attributes(item: h5py.Group | h5py.Dataset) -> dict[str, object]:
    """Attributes as plain values."""
    return {name: np.asarray(value).tolist() for name, value in item.attrs.items()}


def test_bytes_do_not_depend_on_the_blocks(tmp_path):
    n_cells, n_genes = 700, 300
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(1, (n_cells, n_genes)), dtype="f4")
    assert counts.nnz > 2 * CHUNK
    adata = ad.AnnData(counts)
    written = [write_pieces(tmp_path / f"{n}.h5ad", adata, n).read_bytes() for n in (1, 333, 700)]
    assert written[0] == written[1] == written[2]


def test_pointers_take_eight_bytes_only_where_they_must(tmp_path, monkeypatch):
    adata = make_foreign()
    with h5py.File(write_pieces(tmp_path / "a.h5ad", adata, 3)) as file:
        assert file["X/indptr"].dtype == np.int32
    monkeypatch.setattr(h5ad, "MOST_SHORT", 5)
    path = write_pieces(tmp_path / "b.h5ad", adata, 3)
    with h5py.File(path) as file:
        assert file["X/indptr"].dtype == np.int64
        assert file["X/indices"].dtype == np.int32
    assert (read_counts(path).X != adata.X).nnz == 0


def test_axes_are_read_without_the_counts(tmp_path):
    adata = make_foreign(**LABELS)
    write_h5ad(adata, tmp_path / "a.h5ad")
    axes = read_axes(tmp_path / "a.h5ad")
    assert axes.X is None
    assert axes.obs.equals(read_counts(tmp_path / "a.h5ad").obs)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(AttributeError), write_blocks(tmp_path / "a.h5ad", 12, np.float32) as file:
        file.append(None)
    assert not list(tmp_path.iterdir())
