import signal
import subprocess
import sys
import time

import pytest
import tiledbsoma

from synthetic import IngestRun, gene_ids, make_normalized, write_normalized
from tabatlas import names
from tabatlas.errors import GeneMismatchError, InputError, IntegrityError
from tabatlas.experiment import locate_store, open_experiment
from tabatlas.ingest.context import REGISTERED
from tabatlas.ingest.registry import read_registry


@pytest.fixture
def run(tmp_path):
    """Two datasets, `a` and `b`, nothing registered yet."""
    sources = [tmp_path / "normalize" / f"{name}.h5ad" for name in "ab"]
    for source in sources:
        make_normalized(source, source.stem, 20, 15)
    run = IngestRun(tmp_path / "ingest", sources)
    run.choose()
    return run


def refuses(run, error, *words):
    """Whether registering is refused in a message with all words, and nothing is left."""
    with pytest.raises(error) as raised:
        run.register()
    for word in words:
        assert str(word) in str(raised.value)
    assert not run.registry.exists()
    assert not run.store.exists()


def find_experiment(run):
    """Where the registered experiment lies."""
    return locate_store(read_registry(run.registry).uri, run.registry)


def complete(run):
    """Append and seal; return the manifest."""
    for number in range(len(run.sources)):
        run.append(number)
    run.seal()
    return run.manifest


def test_rows_are_contiguous_and_follow_the_dataset_ids(run):
    run.sources.reverse()
    run.register()
    first, second = read_registry(run.registry).datasets
    assert (first.dataset_id, first.row, first.first_joinid, first.stop_joinid) == ("a", 0, 0, 20)
    assert (second.dataset_id, second.row, second.first_joinid) == ("b", 1, 20)


def test_different_genes_are_refused(run):
    make_normalized(run.sources[1], "b", 20, 16)
    refuses(run, GeneMismatchError, *run.sources, "gene list")


def test_genes_in_another_order_are_refused_whatever_the_facts_state(run):
    stated = run.facts[1].read_text()
    make_normalized(run.sources[1], "b", 20, genes=gene_ids(15)[::-1])
    run.facts[1].write_text(stated)
    refuses(run, GeneMismatchError, run.sources[1], "order")


def test_different_organisms_are_refused(run):
    make_normalized(run.sources[1], "b", 20, 15, organism="Mus musculus")
    refuses(run, InputError, *run.sources, "Mus musculus", "Homo sapiens")


def test_one_dataset_id_for_two_files_is_refused(run):
    make_normalized(run.sources[1], "a", 20, 15)
    refuses(run, InputError, *run.sources, "`a`")


def test_a_repeated_obs_id_is_refused_with_its_files(run):
    adata = make_normalized(run.sources[1], "b", 20, 15)
    adata.obs_names = [*adata.obs_names[:-1], "a:BC000003"]
    write_normalized(adata, run.sources[1])
    refuses(run, InputError, *run.sources, "`a:BC000003`")


def test_a_missing_obs_column_is_refused_by_name(run):
    adata = make_normalized(run.sources[1], "b", 20, 15)
    del adata.obs[names.TISSUE]
    write_normalized(adata, run.sources[1])
    refuses(run, InputError, run.sources[1], f"`{names.TISSUE}` is missing")


def test_an_obs_column_of_another_type_is_refused_by_name(run):
    adata = make_normalized(run.sources[1], "b", 20, 15)
    adata.obs[names.SIZE_FACTOR] = adata.obs[names.SIZE_FACTOR].astype("float32")
    write_normalized(adata, run.sources[1])
    refuses(run, InputError, run.sources[1], names.SIZE_FACTOR, "float", "double")


def test_a_missing_label_is_refused_by_column(run):
    adata = make_normalized(run.sources[0], "a", 20, 15)
    adata.obs.loc["a:BC000004", names.CELL_TYPE] = None
    write_normalized(adata, run.sources[0])
    refuses(run, InputError, run.sources[0], f"`{names.CELL_TYPE}`")


def test_a_dataset_without_cells_is_refused(run):
    make_normalized(run.sources[1], "b", 0, 15)
    refuses(run, InputError, run.sources[1], "no cell")


def test_facts_of_another_file_are_refused(run):
    stated = [facts.read_text() for facts in run.facts]
    for facts, text in zip(run.facts, reversed(stated), strict=True):
        facts.write_text(text)
    refuses(run, InputError, run.sources[1], "same order")


def test_a_repeat_keeps_what_was_appended(run):
    run.register()
    written = run.registry.read_bytes()
    run.append(0)
    run.registry.unlink()
    run.register()
    assert run.registry.read_bytes() == written
    with tiledbsoma.Experiment.open(
        locate_store(read_registry(run.registry).uri, run.registry)
    ) as e:
        assert e.ms[names.MEASUREMENT].X[names.RAW_LAYER].nnz
    run.append(1)
    run.seal()


def test_killed_in_the_middle_it_leaves_nothing_under_the_name_and_recovers(run, tmp_path):
    more = [tmp_path / "normalize" / f"more{number}.h5ad" for number in range(6)]
    for source in more:
        make_normalized(source, source.stem, 20, 15)
    run = IngestRun(run.folder, [*run.sources, *more])
    command = [sys.executable, "-m", "tabatlas", "ingest", "register", "--sources", *run.sources]
    command += ["--facts", *run.facts, "--settings", run.settings]
    command += ["--store", run.store, "--registry", run.registry]
    with subprocess.Popen(command) as job:
        while not list(run.store.glob(".*/*/obs")) and job.poll() is None:
            time.sleep(0.001)
        job.kill()
    assert job.returncode == -signal.SIGKILL
    assert not run.registry.exists()
    assert list(run.store.glob(".*/*"))
    assert not list(run.store.glob("[!.]*"))
    run.register()
    assert not list(run.store.glob(".*"))
    with open_experiment(complete(run)) as experiment:
        assert experiment.soma.obs.count == 160


def test_an_experiment_without_its_mark_is_not_used(run):
    run.register()
    with tiledbsoma.Experiment.open(find_experiment(run), "w") as experiment:
        del experiment.metadata[REGISTERED]
    with pytest.raises(IntegrityError, match="registration never ended"):
        run.append(0)
    with pytest.raises(IntegrityError, match="Delete it"):
        run.register()


def test_another_dataset_makes_another_experiment_and_leaves_the_old_one_readable(run, tmp_path):
    small = IngestRun(run.folder, run.sources[:1])
    small.register()
    complete(small)
    kept = small.manifest.rename(small.folder / "old.json")
    run.register()
    with open_experiment(complete(run)) as grown, open_experiment(kept) as old:
        assert grown.soma.uri != old.soma.uri
        assert grown.soma.obs.count == 40
        assert old.soma.obs.count == 20
        assert old.soma.ms[names.MEASUREMENT].X[names.RAW_LAYER].nnz


def test_a_uri_in_the_settings_goes_before_the_store(run, tmp_path):
    run.choose(uri=str(tmp_path / "elsewhere"))
    run.register()
    assert read_registry(run.registry).uri.startswith(str(tmp_path / "elsewhere"))
    assert not run.store.exists()
    with open_experiment(complete(run)) as experiment:
        assert experiment.soma.obs.count == 40
