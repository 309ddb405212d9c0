import numpy as np
import pandas as pd
import pytest
import torch

from synthetic import gene_ids
from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.errors import GeneMismatchError
from tabatlas.experiment import open_experiment
from tabatlas.stream.order import count_minibatches, order_minibatches
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource

LABELS = ("type2", "type0")


@pytest.fixture(scope="module")
def source(atlas):
    return PackedSource(atlas.pack, "train", LABELS)


def test_every_cell_stands_in_exactly_one_minibatch_of_an_epoch():
    for n_cells, batch_size in ((1000, 256), (256, 256), (257, 256), (3, 256)):
        rows = order_minibatches(n_cells, batch_size, 0, 0)
        assert len(rows) == count_minibatches(n_cells, batch_size)
        assert sorted(np.concatenate(rows)) == list(range(n_cells))
        sizes = [len(one) for one in rows]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size


def test_the_order_is_a_function_of_seed_and_epoch():
    first, again, later, other = (
        np.concatenate(order_minibatches(500, 64, *key)).tolist()
        for key in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert first != later
    assert first != other
    assert later != other


def test_resuming_within_an_epoch_is_a_seek(source):
    rows = np.arange(len(source))
    whole = [one.joinid.tolist() for one in source.shuffle(rows, 32, 0, 3)]
    assert [one.joinid.tolist() for one in source.shuffle(rows, 32, 0, 3, first=2)] == whole[2:]


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
    labels = source.cells[names.CELL_TYPE].astype(str)
    for label, number in (("type2", 0), ("type0", 1), ("type1", -1)):
        assert set(source.label_n[labels == label]) == {number}
    assert (source.label_n[source.keep_labelled()] >= 0).all()


def test_presence_follows_each_cells_dataset(source):
    rows = np.arange(len(source))
    dataset = source.read(rows).dataset
    own = source.cells[names.DATASET_ID].astype(str)
    for name, row in (("a", 0), ("b", 1), ("c", 2)):
        assert set(dataset[(own == name).to_numpy()].tolist()) == {row}
    assert source.presence[0].all()
    assert not source.presence[1].all()


def test_cells_of_the_experiment_are_those_of_the_pack(atlas, source):
    with open_experiment(atlas.manifest) as experiment:
        soma = SomaSource(experiment, source.joinid_n[:40], source.genes[names.FEATURE_ID], LABELS)
        found = list(soma.iterate(16))
    joinid_n = torch.cat([one.joinid for one in found])
    assert joinid_n.tolist() == sorted(source.joinid_n[:40].tolist())
    place = {joinid: row for row, joinid in enumerate(source.joinid_n.tolist())}
    packed = source.read(np.array([place[one] for one in joinid_n.tolist()]))
    for name in ("count", "gene", "total_n", "dataset", "label"):
        assert torch.equal(torch.cat([getattr(one, name) for one in found]), getattr(packed, name))
    assert torch.equal(soma.presence, source.presence)


def test_genes_that_the_experiment_lacks_are_an_error(atlas):
    with (
        open_experiment(atlas.manifest) as experiment,
        pytest.raises(GeneMismatchError, match=r"1 of the model's 2 genes.*ENSG99999999999"),
    ):
        SomaSource(experiment, np.arange(3), pd.Series([gene_ids(1)[0], "ENSG99999999999"]), LABELS)
