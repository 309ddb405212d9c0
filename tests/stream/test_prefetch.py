"""Reading ahead: order, errors, threads and memory."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas import names
from tabatlas.errors import ConfigError, IntegrityError
from tabatlas.experiment import open_experiment
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.prefetch import Reading, read_ahead
from tabatlas.stream.soma import SomaSource


def count_readers() -> int:
    """Threads that read ahead."""
    return sum(one.name.startswith("read-ahead") for one in threading.enumerate())


def wait_randomly(number: int) -> int:
    time.sleep(number * 7 % 5 / 1000)
    return number


class Broken(Exception):
    pass


def break_at(bad: int):
    def read(number: int) -> int:
        if number == bad:
            raise Broken(number)
        return wait_randomly(number)

    return read


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 20), st.integers(1, 4), st.integers(1, 8))
def test_what_is_read_comes_in_the_order_it_was_wanted(n, threads, n_ahead):
    assert list(read_ahead(wait_randomly, range(n), threads, n_ahead)) == list(range(n))
    assert count_readers() == 0


@pytest.mark.parametrize("bad", [0, 3, 11])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_where_its_result_is_due(bad, threads):
    coming = read_ahead(break_at(bad), range(12), threads, 4)
    assert [next(coming) for _ in range(bad)] == list(range(bad))
    with pytest.raises(Broken, match=str(bad)):
        next(coming)
    assert count_readers() == 0


def test_an_error_of_what_is_wanted_ends_the_threads():
    def want():
        yield 1
        raise Broken("of the order")

    with pytest.raises(Broken, match="of the order"):
        list(read_ahead(wait_randomly, want(), 2, 1))
    assert count_readers() == 0


@pytest.mark.parametrize("n_taken", [0, 1, 5])
def test_no_thread_is_left_where_nobody_reads_on(n_taken):
    coming = read_ahead(wait_randomly, iter(range(10**9)), 3, 4)
    assert [next(coming) for _ in range(n_taken)] == list(range(n_taken))
    coming.close()
    assert count_readers() == 0


@pytest.mark.parametrize("n_ahead", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_is_read_than_may_wait(n_ahead, threads):
    begun, most = [], 0
    for n_taken, _ in enumerate(read_ahead(begun.append, range(40), threads, n_ahead)):
        time.sleep(0.001)
        most = max(most, len(begun) - n_taken)
    assert len(begun) == 40
    # One is in use while `n_ahead` wait.
    assert most <= n_ahead + 1


@pytest.mark.parametrize("n_ahead", [1, 2, 5])
def test_while_one_is_used_the_next_are_read(n_ahead):
    begun = [threading.Event() for _ in range(12)]
    for number in read_ahead(lambda one: begun[one].set() or one, range(12), 1, n_ahead):
        assert all(one.wait(10) for one in begun[: number + 1 + n_ahead])


def test_memory_says_how_much_may_wait():
    reading = Reading(threads=4, bytes=1000)
    assert reading.count_ahead("buffers", 100) == 8
    assert reading.count_ahead("buffers", 200) == 4
    assert reading.count_ahead("buffers", 200, n_held=2) == 3
    assert reading.count_ahead("buffers", 500) == 1
    assert reading.count_ahead("buffers", 0) == 8
    with pytest.raises(ConfigError, match=r"loader_bytes: 1000: 2 buffers of 501 bytes must fit"):
        reading.count_ahead("buffers", 501)
    with pytest.raises(ConfigError, match=r"3 buffers of 400 bytes"):
        reading.count_ahead("buffers", 400, n_held=2)


def test_sources_leave_no_thread_where_nobody_reads_on(atlas):
    packed = PackedSource(atlas.pack, "train", reading=Reading(threads=3))
    order = packed.order(8, seed=0)
    with open_experiment(atlas.manifest) as experiment:
        genes = packed.genes[names.FEATURE_ID]
        soma = SomaSource(experiment, packed.joinid_n, genes, plan=packed.plan)
        for coming in (
            packed.shuffle(order, 0),
            packed.iterate(np.arange(100), 8),
            soma.shuffle(order, 0),
            soma.iterate(8),
        ):
            next(coming)
            coming.close()
            del coming
            assert count_readers() == 0


def test_sources_leave_no_thread_after_an_error(copied):
    source = PackedSource(copied.pack, "train", reading=Reading(threads=3))
    os.truncate(copied.packed / "train" / "00001.gene", 0)
    with pytest.raises(IntegrityError, match=r"00001\.gene: changed"):
        list(source.shuffle(source.order(8, seed=0), 0))
    assert count_readers() == 0


def test_too_little_memory_for_a_minibatch_is_an_error(atlas):
    source = PackedSource(atlas.pack, "train", reading=Reading(bytes=1000))
    with pytest.raises(ConfigError, match="loader_bytes: 1000: 2 minibatches of"):
        list(source.shuffle(source.order(100, seed=0), 0))


# Packs two atlases of which one has ten times the cells, and prints for each how much anonymous
# memory (kB) a source takes while an epoch of it is read.
STREAM = """
    import sys
    from pathlib import Path
    import numpy as np
    import scipy.sparse as sp
    from handmade import make_gappy, make_obs
    from tabatlas.stream.packed import PackedSource
    from tabatlas.stream.prefetch import Reading

    def read_memory():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def draw_counts(n_cells, n_entries=100):
        gene = np.tile(np.arange(n_entries), n_cells)
        count = np.random.default_rng(0).integers(1, 200, len(gene), dtype=np.int32)
        pointers = np.arange(n_cells + 1) * n_entries
        return sp.csr_matrix((count, gene, pointers), shape=(n_cells, n_entries))

    def stream(atlas):
        before = read_memory()
        source = PackedSource(atlas.pack, "train", reading=Reading(threads=2, bytes=1 << 22))
        taken = [read_memory() for _ in source.shuffle(source.order(256, seed=0), 0)]
        return max(taken) - before

    atlases = []
    for n_cells in (5_000, 50_000):
        counts = draw_counts(n_cells)
        obs = make_obs(np.arange(n_cells) * 2, counts)
        atlases.append(make_gappy(Path(sys.argv[1]) / str(n_cells), counts, obs))
        atlases[-1].run_pack(shard_cells=4096, buffer_cells=2048, block_cells=64)
    stream(atlases[0])
    for atlas in atlases:
        print(stream(atlas))
"""


@pytest.mark.slow
def test_ten_times_the_cells_take_no_more_memory(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    called = [sys.executable, "-c", textwrap.dedent(STREAM), tmp_path]
    ended = subprocess.run(
        called, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    small, large = map(int, ended.stdout.split())
    # The larger pack's entries are 10 MB.
    assert large < small + 4_000
