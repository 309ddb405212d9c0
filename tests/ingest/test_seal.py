import shutil
import time

import anndata as ad
import numpy as np
import pyarrow as pa
import pytest
import tiledbsoma

from synthetic import IngestRun, make_experiment, make_normalized, write_normalized
from tabatlas import names
from tabatlas.errors import IntegrityError, ModelError
from tabatlas.experiment import open_experiment
from tabatlas.ingest.blocks import read_rows
from tabatlas.ingest.stage import seal
from tabatlas.provenance import read_json, write_json

X_RAW, X_NORMALIZED = f"X/{names.RAW_LAYER}", f"X/{names.NORMALIZED_LAYER}"


@pytest.fixture(scope="module")
def appended(tmp_path_factory):
    """Two datasets, `a` and `b`, of 20 cells and 15 genes, not sealed."""
    folder = tmp_path_factory.mktemp("appended")
    sources = [folder / "normalize" / f"{name}.h5ad" for name in "ab"]
    for source in sources:
        make_normalized(source, source.stem, 20, 15)
    run = IngestRun(folder / "results" / "ingest", sources)
    run.choose(normalized=True)
    run.register()
    run.append(0)
    run.append(1)
    return folder


@pytest.fixture
def run(appended, tmp_path):
    shutil.copytree(appended, tmp_path, dirs_exist_ok=True)
    sources = sorted((tmp_path / "normalize").glob("*.h5ad"))
    return IngestRun(tmp_path / "results" / "ingest", sources)


def write_values(run, name, row, gene, value):
    """Write one value behind the stage's back."""
    with open_array(run, name, "w") as array:
        kind = array.schema.field("soma_data").type
        columns = {"soma_dim_0": [row], "soma_dim_1": [gene], "soma_data": pa.array([value], kind)}
        array.write(pa.table(columns))


def refuses(run, *words):
    """Whether sealing is refused in a message with all words, and no manifest is left."""
    with pytest.raises(IntegrityError) as raised:
        run.seal()
    for word in words:
        assert word in str(raised.value)
    assert not run.manifest.exists()


def seals_when_appended_again(run, folder):
    """Another append of the second source mends the experiment: it is as if undisturbed."""
    run.append(1)
    run.seal()
    undisturbed = make_experiment(folder / "undisturbed", run.sources)
    assert read_json(run.manifest)["digest"] == read_json(undisturbed)["digest"]


def test_a_missing_receipt_is_refused_by_dataset(run):
    with pytest.raises(IntegrityError, match="b: was not appended"):
        seal(run.registry, run.receipts[:1], run.manifest)
    assert not run.manifest.exists()


def test_a_receipt_of_another_experiment_is_refused(run):
    write_json(read_json(run.receipts[1]) | {"sources_digest": "other"}, run.receipts[1])
    refuses(run, "b: was appended to another experiment")


def test_counts_that_are_not_there_are_refused_whatever_the_receipts_say(run):
    shutil.rmtree(run.store)
    run.register()
    run.append(0)
    refuses(run, "b: entries: 0 in the experiment")


def test_a_changed_count_is_refused(run):
    counts = read_raw(run)
    write_values(run, X_RAW, 25, counts[25].indices[0], int(counts[25].data[0]) + 1)
    refuses(run, "b: total counts")


def test_a_moved_count_is_refused(run):
    counts = read_raw(run)
    one, other = counts[25].data[:2]
    assert one != other
    write_values(run, X_RAW, 25, counts[25].indices[0], int(other))
    write_values(run, X_RAW, 25, counts[25].indices[1], int(one))
    refuses(run, "b: counts")


def test_counts_beyond_the_last_cell_are_refused(run):
    with open_array(run, X_RAW, "w") as raw:
        raw.resize((41, 15))
    write_values(run, X_RAW, 40, 3, 5)
    refuses(run, "all datasets: shape of X/raw: (41, 15) in the experiment, (40, 15)")


def test_counts_of_a_cell_that_obs_lacks_are_refused(run):
    with open_obs(run, "d") as obs:
        obs.delete_cells(([25],))
    refuses(run, "all datasets: cells: 39 in the experiment, 40")


def test_counts_of_a_cell_that_has_none_are_refused(run, tmp_path):
    make_normalized(tmp_path / "empty" / "a.h5ad", "a", 20, 15, empty_cells=[7])
    run = IngestRun(tmp_path / "empty" / "ingest", [tmp_path / "empty" / "a.h5ad"])
    run.choose()
    run.register()
    run.append(0)
    write_values(run, X_RAW, 7, 3, 5)
    refuses(run, "a: entries")


def test_a_cell_whose_counts_are_gone_is_refused_and_appended_again_it_is_sealed(run, tmp_path):
    with open_array(run, X_RAW, "d") as raw:
        raw.delete_cells(([25], slice(None)))
    assert read_raw(run)[25].nnz == 0
    refuses(run, "b: entries")
    seals_when_appended_again(run, tmp_path)


def test_a_gap_in_the_cells_at_sealing_is_refused_by_dataset(run):
    """A cell moved beyond the last one leaves their number as it was."""
    with open_obs(run) as obs:
        moved = obs.read((slice(25, 25),)).concat()
    with open_obs(run, "d") as obs:
        obs.delete_cells(([25],))
    with open_obs(run, "w") as obs:
        obs.tiledbsoma_resize_soma_joinid_shape(41)
        obs.write(moved.set_column(0, names.JOINID, pa.array([40])))
    refuses(run, "b: cells: 19 in the experiment, 20")


def test_another_measured_gene_is_refused(run):
    write_values(run, names.PRESENCE, 0, 4, False)
    refuses(run, "a: measured genes")


def test_a_normalized_value_that_is_not_that_of_its_count_is_refused(run):
    gene = read_raw(run)[3].indices[0]
    write_values(run, X_NORMALIZED, 3, gene, 0.5)
    refuses(run, "a: wrong normalized blocks: 1")


def test_changed_obs_are_refused(run):
    with open_obs(run) as obs:
        first, second = obs.read((slice(0, 1),)).concat().to_pylist()
    first[names.OBS_ID], second[names.OBS_ID] = second[names.OBS_ID], first[names.OBS_ID]
    with open_obs(run, "w") as obs:
        obs.write(pa.Table.from_pylist([first, second], obs.schema))
    refuses(run, "a: obs")


def test_what_was_wrong_and_is_appended_again_can_be_sealed(run, tmp_path):
    counts = read_raw(run)
    write_values(run, X_RAW, 25, counts[25].indices[0], 7777)
    refuses(run, "b: total counts")
    seals_when_appended_again(run, tmp_path)


def test_readers_see_nothing_that_is_written_after_sealing(run):
    run.seal()
    before = read_sealed(run.manifest)
    time.sleep(0.002)
    write_values(run, X_RAW, 25, 0, 4242)
    assert 4242 in read_raw(run).data
    np.testing.assert_array_equal(read_sealed(run.manifest).toarray(), before.toarray())


def test_a_repeated_seal_gives_the_same_digest(run):
    run.seal()
    first = read_json(run.manifest)
    run.seal()
    again = read_json(run.manifest)
    assert again["timestamp"] > first["timestamp"]
    assert again | {"timestamp": 0} == first | {"timestamp": 0}


def add_count(adata):
    adata.X.data[7] += 1


def swap_labels(adata):
    adata.obs[names.CELL_TYPE] = adata.obs[names.CELL_TYPE].to_numpy()[::-1]
    adata.obs[names.CELL_TYPE] = adata.obs[names.CELL_TYPE].astype("category")


def rename_gene(adata):
    adata.var_names = [*adata.var_names[:-1], "ENSG00000999999"]


def forget_gene(adata):
    adata.var.loc[adata.var_names[4], names.MEASURED] = False


@pytest.mark.parametrize("change", [add_count, swap_labels, rename_gene, forget_gene])
def test_the_digest_tells_any_other_content(run, tmp_path, change):
    run.seal()
    for source in run.sources:
        adata = ad.read_h5ad(source)
        change(adata)
        write_normalized(adata, source)
    changed = make_experiment(tmp_path / "changed", run.sources)
    assert read_json(changed)["digest"] != read_json(run.manifest)["digest"]


def test_moved_results_stay_readable(run, tmp_path):
    run.seal()
    before = read_sealed(run.manifest)
    (tmp_path / "results").rename(tmp_path / "moved")
    moved = read_sealed(tmp_path / "moved" / "ingest" / "manifest.json")
    np.testing.assert_array_equal(moved.toarray(), before.toarray())


def test_a_manifest_in_another_folder_finds_the_experiment(run, tmp_path):
    manifest = tmp_path / "elsewhere" / "deep" / "manifest.json"
    seal(run.registry, run.receipts, manifest)
    assert read_sealed(manifest).nnz


def test_nothing_is_read_without_a_manifest(run):
    with pytest.raises(ModelError, match="no sealed experiment"):
        read_sealed(run.manifest)


def test_a_manifest_of_another_format_is_refused(run):
    run.seal()
    write_json(read_json(run.manifest) | {"format": 99}, run.manifest)
    with pytest.raises(ModelError, match="format 99"):
        read_sealed(run.manifest)


def test_a_missing_experiment_is_a_clear_error(run):
    run.seal()
    shutil.rmtree(run.store)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_sealed(run.manifest)


def read_sealed(manifest):
    """X["raw"] as a reader sees it."""
    with open_experiment(manifest) as experiment:
        raw = experiment.soma.ms[names.MEASUREMENT].X[names.RAW_LAYER]
        return read_rows(raw, 0, raw.shape[0])


def read_raw(run):
    """X["raw"] as it is now."""
    with open_array(run, X_RAW) as raw:
        return read_rows(raw, 0, raw.shape[0])


def open_array(run, name, mode="r"):
    """A matrix of the run's experiment, past the stage."""
    (folder,) = run.store.glob("[!.]*")
    return tiledbsoma.SparseNDArray.open(str(folder / "ms/RNA" / name), mode)


def open_obs(run, mode="r"):
    """obs of the run's experiment, past the stage."""
    (folder,) = run.store.glob("[!.]*")
    return tiledbsoma.DataFrame.open(str(folder / "obs"), mode)
