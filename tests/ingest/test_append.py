import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import anndata as ad
import h5py
import pytest
import tiledbsoma

from synthetic import IngestRun, make_experiment, make_normalized, write_normalized
from tabatlas.errors import InputError, IntegrityError
from tabatlas.ingest import blocks, sealing
from tabatlas.ingest.blocks import store_rows
from tabatlas.provenance import read_json


def place(folder):
    """Two datasets of 120 cells; an append takes about 20 blocks."""
    sources = [folder / "normalize" / f"{name}.h5ad" for name in "ab"]
    for source in sources:
        make_normalized(source, source.stem, 120, 40)
    run = IngestRun(folder / "ingest", sources)
    run.choose(block_entries=50)
    return run


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registered")
    place(folder).register()
    return folder


@pytest.fixture
def run(registered, tmp_path):
    """Both datasets registered, nothing appended."""
    shutil.copytree(registered, tmp_path, dirs_exist_ok=True)
    return IngestRun(tmp_path / "ingest", sorted((tmp_path / "normalize").glob("*.h5ad")))


@pytest.fixture(scope="module")
def digest(tmp_path_factory):
    """What an undisturbed run seals."""
    run = place(tmp_path_factory.mktemp("undisturbed"))
    return read_json(make_experiment(run.folder, run.sources))["digest"]


def seal_all(run, appended=()):
    """Append what is not yet, seal, and return the digest."""
    for number in {0, 1}.difference(appended):
        run.append(number)
    run.seal()
    return read_json(run.manifest)["digest"]


def start_append(run, number):
    """Start the real command in a process of its own."""
    command = [sys.executable, "-m", "tabatlas", "ingest", "append"]
    command += ["--source", run.sources[number], "--facts", run.facts[number]]
    command += ["--settings", run.settings, "--registry", run.registry]
    return subprocess.Popen([*command, "--receipt", run.receipts[number]])


def find_fragments(run):
    """Every finished write to X."""
    return sorted(run.store.glob("*/ms/RNA/X/raw/__commits/*"))


def open_raw(run):
    """X["raw"] of the run's experiment."""
    (folder,) = run.store.glob("[!.]*")
    return tiledbsoma.SparseNDArray.open(str(folder / "ms/RNA/X/raw"))


def test_a_repeat_writes_nothing_and_gives_the_same_receipt(run):
    run.append(0)
    fragments, receipt = find_fragments(run), run.receipts[0].read_bytes()
    assert len(fragments) > 1
    run.append(0)
    assert find_fragments(run) == fragments
    assert run.receipts[0].read_bytes() == receipt


def test_killed_in_the_middle_and_repeated_it_seals_the_same(run, digest):
    with start_append(run, 0) as job:
        while len(find_fragments(run)) < 3 and job.poll() is None:
            time.sleep(0.001)
        job.kill()
    assert job.returncode == -signal.SIGKILL
    assert not run.receipts[0].exists()
    killed_after = len(find_fragments(run))
    run.append(0)
    assert len(find_fragments(run)) > killed_after
    assert seal_all(run, appended={0}) == digest


def test_half_an_append_in_other_blocks_is_completed(run, digest):
    with open_raw(run) as raw:
        store_rows(raw, 0, ad.read_h5ad(run.sources[0]).X[:70])
    run.choose(block_entries=300)
    assert seal_all(run) == digest


def test_writing_rows_twice_in_overlapping_blocks_reads_as_once(run, digest):
    counts = ad.read_h5ad(run.sources[1]).X
    for start, stop in ((0, 50), (30, 120), (10, 11), (0, 120)):
        with open_raw(run) as raw:
            store_rows(raw, 120 + start, counts[start:stop])
    assert seal_all(run) == digest


def test_two_appends_at_once_seal_the_same(run, digest):
    jobs = [start_append(run, number) for number in (0, 1)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert seal_all(run, appended={0, 1}) == digest


def test_the_same_append_twice_at_once_seals_the_same(run, digest):
    jobs = [start_append(run, 0) for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert seal_all(run, appended={0}) == digest


def test_order_and_block_size_do_not_change_the_digest(run, digest):
    run.choose(block_entries=31)
    run.append(1)
    run.choose(block_entries=10**9)
    run.append(0)
    run.choose(block_entries=33)
    assert seal_all(run, appended={0, 1}) == digest


def test_what_is_given_to_tiledb_and_read_back_at_once_changes_nothing(run, digest, monkeypatch):
    monkeypatch.setattr(blocks, "BATCH_ENTRIES", 7)
    for module in (blocks, sealing):
        monkeypatch.setattr(module, "READ_ENTRIES", 11)
    run.choose(block_entries=300)
    run.append(0)
    written = find_fragments(run)
    run.append(0)
    assert find_fragments(run) == written
    assert seal_all(run, appended={0}) == digest


def test_a_receipt_tells_what_was_written(run):
    run.append(0)
    receipt, facts = read_json(run.receipts[0]), read_json(run.facts[0])
    assert receipt["n_obs"] == facts["n_cells"] == 120
    assert receipt["n_entries"] == facts["n_entries"]
    assert receipt["total"] == facts["total"]


def test_a_source_of_another_digest_is_refused(run):
    facts = read_json(run.facts[0])
    make_normalized(run.sources[0], "a", 120, 40, density=0.3)
    assert read_json(run.facts[0])["digest"] != facts["digest"]
    refuses(run, IntegrityError, "changed since it was registered")


def test_a_source_with_other_cells_than_its_facts_is_refused(run):
    stated = run.facts[0].read_text()
    adata = make_normalized(run.sources[0], "a", 120, 40)
    write_normalized(adata[::-1].copy(), run.sources[0])
    run.facts[0].write_text(stated)
    refuses(run, IntegrityError, "changed since it was registered")


def test_a_dataset_that_was_not_registered_is_refused(run, tmp_path):
    make_normalized(tmp_path / "normalize" / "c.h5ad", "c", 120, 40)
    stranger = IngestRun(run.folder, [tmp_path / "normalize" / "c.h5ad"])
    refuses(stranger, IntegrityError, "`c` is not registered")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda x: x.indices.__setitem__([0, 1], x.indices[[1, 0]]), "do not rise"),
        (lambda x: x.indices.__setitem__(1, x.indices[0]), "do not rise"),
        (lambda x: x.indices.__setitem__(-1, 40), "column index"),
        (lambda x: x.data.__setitem__(5, 0), "stores values from 0"),
        (lambda x: x.data.__setitem__(5, -3), "stores values from -3"),
        (lambda x: x.indptr.__setitem__(3, 10**6), "row pointers"),
    ],
    ids=["unsorted", "repeated", "out of range", "zero", "negative", "row pointers"],
)
def test_a_damaged_matrix_is_refused(run, damage, words):
    stated = run.facts[0].read_text()
    rewrite_matrix(run.sources[0], damage)
    run.facts[0].write_text(stated)
    refuses(run, InputError, words)


def test_counts_that_do_not_add_up_to_the_facts_are_refused(run):
    stated = run.facts[0].read_text()
    rewrite_matrix(run.sources[0], lambda x: x.data.__setitem__(5, x.data[5] + 1))
    run.facts[0].write_text(stated)
    refuses(run, IntegrityError, "total counts")


def refuses(run, error, words):
    """Whether appending the first source is refused, without a receipt."""
    with pytest.raises(error, match=words) as raised:
        run.append(0)
    assert str(run.sources[0]) in str(raised.value)
    assert not run.receipts[0].exists()


def rewrite_matrix(path, damage):
    """Change the stored matrix of an h5ad in place."""
    with h5py.File(path, "r+") as file:
        matrix = SimpleNamespace(**{name: values[:] for name, values in file["X"].items()})
        damage(matrix)
        for name, values in vars(matrix).items():
            file["X"][name][:] = values
