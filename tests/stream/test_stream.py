import numpy as np
import pytest
import torch

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.stream.packed import PackedSource

LABELS = ("type2", "type0")


@pytest.fixture(scope="module")
def source(atlas):
    return PackedSource(atlas.pack, "train", LABELS)


def test_rows_come_in_the_order_they_were_asked_for(source):
    everything = source.read(np.arange(len(source)))
    rows = np.array([120, 3, 60, 3, 0])
    asked = source.read(rows)
    assert asked.joinid.tolist() == everything.joinid[rows].tolist()
    whole = everything.to_csr(source.n_genes)
    assert (asked.to_csr(source.n_genes) != whole[rows]).nnz == 0


def test_dense_values_are_log1p_cp10k_to_two_units_in_the_last_place(source):
    minibatch = source.read(np.arange(len(source)))
    counts = minibatch.to_csr(source.n_genes)
    wanted = log1p_cp10k(counts, minibatch.total_n.numpy()).toarray()
    found = minibatch.densify(source.n_genes).numpy()
    np.testing.assert_array_max_ulp(found, wanted, maxulp=2)


def test_an_empty_cell_is_all_zero(source):
    minibatch = source.read(np.arange(2))
    empty = type(minibatch)(
        indptr=torch.tensor([0, 0]),
        gene=torch.empty(0, dtype=torch.int32),
        count=torch.empty(0),
        total_n=torch.tensor([0]),
        dataset=torch.tensor([0]),
        label=torch.tensor([-1]),
        level=torch.empty(1, 0, dtype=torch.int64),
        number=torch.empty(1, 0),
        joinid=torch.tensor([7]),
    )
    assert empty.densify(5).tolist() == [[0.0] * 5]


def test_labels_are_places_in_the_given_list(source):
    labels = source.cells.table()[names.CELL_TYPE].astype(str)
    label_n = source.cells.find_classes(slice(None))
    for label, number in (("type2", 0), ("type0", 1), ("type1", -1)):
        assert set(label_n[labels == label]) == {number}
    assert (label_n[source.keep_labeled()] >= 0).all()


def test_presence_follows_each_cells_dataset(source):
    rows = np.arange(len(source))
    dataset = source.read(rows).dataset
    own = source.cells.table()[names.DATASET_ID].astype(str)
    for name, row in (("a", 0), ("b", 1), ("c", 2)):
        assert set(dataset[(own == name).to_numpy()].tolist()) == {row}
    assert source.presence[0].all()
    assert not source.presence[1].all()
