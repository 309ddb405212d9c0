import itertools

import anndata as ad
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import tiledbsoma

from synthetic import count_of, make_counts, make_experiment, make_normalized
from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.experiment import open_experiment
from tabatlas.ingest.blocks import read_rows
from tabatlas.provenance import read_json

EMPTY, UNMEASURED = [0, 7, 39], [2, 29]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normalize")
    make_normalized(folder / "a.h5ad", "a", 40, 30, empty_cells=EMPTY, unmeasured=UNMEASURED)
    make_normalized(folder / "b.h5ad", "b", 25, 30)
    make_normalized(folder / "c.h5ad", "c", 1, 30, n_types=1)
    return [folder / f"{name}.h5ad" for name in "abc"]


@pytest.fixture(scope="module")
def manifest(sources, tmp_path_factory):
    # Neither the order of the sources nor blocks that cut datasets anywhere may matter.
    given = [sources[2], sources[0], sources[1]]
    return make_experiment(
        tmp_path_factory.mktemp("results"), given, normalized=True, block_entries=50
    )


@pytest.fixture
def experiment(manifest):
    with open_experiment(manifest) as opened:
        yield opened.soma


def read_layer(experiment, layer_name=names.RAW_LAYER):
    array = experiment.ms[names.MEASUREMENT].X[layer_name]
    return read_rows(array, 0, array.shape[0])


def test_experiment_holds_every_count_to_the_bit(experiment, sources):
    written = sp.vstack([ad.read_h5ad(source).X for source in sources], format="csr")
    stored = read_layer(experiment)
    assert stored.dtype == np.int32
    assert stored.shape == (66, 30)
    np.testing.assert_array_equal(stored.indptr, written.indptr)
    np.testing.assert_array_equal(stored.indices, written.indices)
    np.testing.assert_array_equal(stored.data, written.data)


def test_every_count_stands_at_its_cell_and_gene(experiment):
    obs = experiment.obs.read().concat().to_pandas()
    stored = read_layer(experiment).tocoo()
    assert stored.nnz
    for joinid, gene, count in zip(stored.row, stored.col, stored.data, strict=True):
        cell = int(obs[names.BARCODE][joinid].removeprefix("BC"))
        assert count == count_of(obs[names.DATASET_ID][joinid], np.array(cell), np.array(gene))


def test_empty_cells_and_unmeasured_genes_stay_empty(experiment):
    stored = read_layer(experiment)
    assert not np.diff(stored.indptr)[EMPTY].any()
    assert not stored[:40, UNMEASURED].nnz


def test_any_run_of_rows_is_read_as_written(experiment, sources):
    written = sp.vstack([ad.read_h5ad(source).X for source in sources], format="csr")
    array = experiment.ms[names.MEASUREMENT].X[names.RAW_LAYER]
    for start, stop in itertools.combinations([0, 1, 8, 39, 41, 65, 66], 2):
        assert (read_rows(array, start, stop) != written[start:stop]).nnz == 0


def test_obs_holds_every_column_of_every_source_in_order(experiment, sources):
    obs = experiment.obs.read().concat().to_pandas()
    assert obs[names.JOINID].tolist() == list(range(66))
    first = 0
    for source in sources:
        written = ad.read_h5ad(source).obs
        stored = obs.iloc[first : first + len(written)]
        assert stored[names.OBS_ID].tolist() == written.index.tolist()
        for name in written:
            assert stored[name].tolist() == written[name].tolist(), name
        first += len(written)
    assert obs[names.CELL_TYPE].dtype == "category"
    assert obs[names.TOTAL_N].dtype == np.int64


def test_categories_are_those_of_all_datasets(experiment):
    obs = experiment.obs.read().concat().to_pandas()
    assert list(obs[names.DATASET_ID].cat.categories) == ["a", "b", "c"]
    assert list(obs[names.CELL_TYPE].cat.categories) == ["type0", "type1", "type2"]


def test_var_holds_the_genes_in_order(experiment, sources):
    var = experiment.ms[names.MEASUREMENT].var.read().concat().to_pandas()
    written = ad.read_h5ad(sources[0]).var
    assert var[names.JOINID].tolist() == list(range(30))
    assert var[names.FEATURE_ID].tolist() == written.index.tolist()
    assert var[names.FEATURE_NAME].tolist() == written[names.FEATURE_NAME].tolist()


def test_presence_tells_which_dataset_measured_which_gene(experiment):
    array = experiment.ms[names.MEASUREMENT][names.PRESENCE]
    presence = read_rows(array, 0, 3).toarray()
    measured = np.ones((3, 30), dtype=bool)
    measured[0, UNMEASURED] = False
    np.testing.assert_array_equal(presence, measured)


def test_normalized_layer_is_that_of_the_one_formula(experiment):
    total_n = experiment.obs.read(column_names=[names.TOTAL_N]).concat().to_pandas()
    scaled = log1p_cp10k(read_layer(experiment), total_n[names.TOTAL_N].to_numpy())
    stored = read_layer(experiment, names.NORMALIZED_LAYER)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored.toarray(), scaled.toarray())


def test_normalized_layer_is_absent_unless_asked_for(sources, tmp_path):
    with open_experiment(make_experiment(tmp_path, sources[:1])) as experiment:
        assert list(experiment.soma.ms[names.MEASUREMENT].X) == [names.RAW_LAYER]


def test_manifest_tells_what_the_sources_hold(manifest, sources):
    sealed = read_json(manifest)
    facts = [read_json(source.with_suffix(".json")) for source in sources]
    assert sealed["n_obs"] == 66
    assert sealed["n_vars"] == 30
    assert sealed["genes_digest"] == facts[0]["genes_digest"]
    assert sealed["organism"] == "Homo sapiens"
    assert sealed["normalized"] is True
    assert [dataset["first_joinid"] for dataset in sealed["datasets"]] == [0, 40, 65]
    assert [dataset["row"] for dataset in sealed["datasets"]] == [0, 1, 2]
    for key in ("n_entries", "total"):
        assert sealed[key] == sum(stated[key] for stated in facts)
        assert [dataset[key] for dataset in sealed["datasets"]] == [one[key] for one in facts]
    assert [dataset["n_measured"] for dataset in sealed["datasets"]] == [28, 30, 30]


def test_rows_come_in_order_from_tiles_that_do_not_span_all_genes(tmp_path):
    written = make_counts("a", 40, 30, 0.3)
    tiles = {"tiledb": {"create": {"dims": {f"soma_dim_{n}": {"tile": 4} for n in (0, 1)}}}}
    with tiledbsoma.SparseNDArray.create(
        str(tmp_path / "x"), type=pa.int32(), shape=written.shape, platform_config=tiles
    ) as array:
        array.write(pa.SparseCOOTensor.from_scipy(written.tocoo()))
    with tiledbsoma.SparseNDArray.open(str(tmp_path / "x")) as array:
        stored = read_rows(array, 3, 37)
    assert stored.has_canonical_format
    np.testing.assert_array_equal(stored.toarray(), written[3:37].toarray())
