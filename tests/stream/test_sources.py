"""Both sources of training give the same minibatches, to the bit, whoever reads them and how."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handmade import GAPS, make_gappy
from small_atlas import Atlas, make_typed
from synthetic import IngestRun, gene_ids, make_counts
from tabatlas import names
from tabatlas.errors import IntegrityError
from tabatlas.experiment import open_experiment
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order, Plan, Share
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.prefetch import Reading
from tabatlas.stream.soma import SomaSource

LABELS = ("type2", "type0")


@dataclasses.dataclass(frozen=True)
class Column:
    name: str
    levels: tuple[str, ...] = ()


COVARIATES = (
    Column(names.DONOR, ("collection/donor1", "collection/donor0")),
    Column(names.PCT_MT),
    Column(names.BATCH, ("a/a-batch0",)),
    Column(names.TOTAL_N),
    Column(names.DATASET_ID, ("c", "a")),
)


@pytest.fixture(scope="module")
def backward(tmp_path_factory) -> Atlas:
    """Datasets appended in the reverse of the order of their joinids; variable genes packed."""
    folder = tmp_path_factory.mktemp("backward")
    sources = [
        make_typed(folder / f"{name}.h5ad", name, n_cells, n_donors=6)
        for name, n_cells in (("a", 70), ("b", 50), ("c", 60))
    ]
    run = IngestRun(folder / "ingest", sources)
    run.choose(block_entries=500)
    run.register()
    for number in (2, 1, 0):
        run.append(number)
    run.seal()
    made = Atlas(folder)
    made.run_split(test_fraction=0.3, validation_fraction=0.2)
    made.run_pack(shard_cells=13, genes="hvg", n_hvg=25, memory_bytes=1 << 20)
    return made


@pytest.fixture(scope="module")
def gappy(tmp_path_factory) -> Atlas:
    """joinids with gaps, an empty cell, and tiles of few genes: a row comes in several pieces."""
    folder = tmp_path_factory.mktemp("gappy")
    counts = make_counts("a", len(GAPS), 40, density=0.2).tolil()
    counts[5] = 0
    made = make_gappy(folder, counts.tocsr(), tile=16)
    made.run_pack(shard_cells=9)
    return made


@contextmanager
def open_both(
    atlas: Atlas, reading: Reading | None = None, part: str = "train"
) -> Iterator[tuple[PackedSource, SomaSource]]:
    packed = PackedSource(atlas.pack, part, LABELS, COVARIATES, reading)
    with open_experiment(atlas.manifest) as experiment:
        genes = packed.genes[names.FEATURE_ID]
        told = (genes, LABELS, COVARIATES, packed.plan, reading)
        yield packed, SomaSource(experiment, packed.joinid_n, *told)


def list_fields(minibatch: Minibatch) -> dict[str, torch.Tensor]:
    return {one.name: getattr(minibatch, one.name) for one in dataclasses.fields(minibatch)}


def assert_same(one: Minibatch, other: Minibatch) -> None:
    for name, first in list_fields(one).items():
        second = getattr(other, name)
        assert first.dtype == second.dtype, name
        assert torch.equal(first, second), name


def join(shares: list[Minibatch]) -> Minibatch:
    """The minibatch of which these are the shares, in their order."""
    joined = {name: torch.cat(own) for name, own in zip_fields(shares).items() if name != "indptr"}
    length_n = torch.cat([one.indptr.diff() for one in shares])
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), length_n.cumsum(0)])
    return Minibatch(indptr=indptr, **joined)


def zip_fields(minibatches: list[Minibatch]) -> dict[str, list[torch.Tensor]]:
    fields = [list_fields(one) for one in minibatches]
    return {name: [one[name] for one in fields] for name in fields[0]}


def assert_same_all(one, other) -> None:
    for first, second in zip(one, other, strict=True):
        assert_same(first, second)


@pytest.mark.parametrize("name", ["atlas", "backward", "gappy"])
def test_both_sources_give_the_experiments_own_counts(name, request):
    atlas = request.getfixturevalue(name)
    with open_both(atlas) as (packed, soma):
        rows = np.random.default_rng(0).permutation(len(packed))
        assert_same(packed.read(rows), soma.read(rows))
        counts = soma.experiment.read_counts(soma.joinid_n[rows])
        atlas_genes = soma.experiment.read_var()[names.FEATURE_ID]
    places = pd.Index(atlas_genes).get_indexer(packed.genes[names.FEATURE_ID])
    assert (packed.read(rows).to_csr(packed.n_genes) != counts[:, places]).nnz == 0
    assert torch.equal(packed.presence, soma.presence)


@pytest.mark.parametrize("name", ["atlas", "backward", "gappy"])
def test_both_sources_give_the_same_epoch_whoever_shares_it(name, request):
    with open_both(request.getfixturevalue(name)) as (packed, soma):
        order = packed.order(17, seed=3)
        whole = list(packed.shuffle(order, 1))
        assert_same_all(whole, soma.shuffle(soma.order(17, seed=3), 1))
        for world in (1, 2, 3, 4):
            for source in (packed, soma):
                for n_own in (1, 3):
                    assert_same_all(whole, share_out(source, order, 1, world, n_own))


def share_out(source, order, epoch, world, n_own) -> Iterator[Minibatch]:
    """Minibatches that several ranks read in micro-batches, put together again."""
    shares = [Share(rank, world, world * n_own) for rank in range(world)]
    coming = [list(source.shuffle(order, epoch, 0, share)) for share in shares]
    for step in zip(*(batched(one, n_own) for one in coming), strict=True):
        yield join([part for own in step for part in own])


def batched(parts: list[Minibatch], size: int) -> list[list[Minibatch]]:
    return [parts[first : first + size] for first in range(0, len(parts), size)]


weights = st.none() | st.tuples(st.floats(0, 3), st.floats(0, 3))


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    plan=st.builds(Plan, st.integers(1, 60), st.integers(1, 200)),
    batch_size=st.integers(1, 80),
    key=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    weight_c=weights,
    threads=st.integers(1, 4),
    where=st.floats(0, 1),
    world=st.integers(1, 4),
    n_own=st.integers(1, 3),
)
def test_under_any_plan_both_give_the_same_from_any_minibatch_on(
    backward, plan, batch_size, key, weight_c, threads, where, world, n_own
):
    (seed, epoch), reading = key, Reading(threads=threads)
    with open_both(backward, reading) as (packed, soma):
        weigh = None if weight_c is None else packed.cells.weigh(np.array(weight_c))
        order = Order(len(packed), batch_size, plan, seed, weigh)
        first = round(where * order.n_minibatches)
        share = Share(seed % world, world, world * n_own)
        found = list(packed.shuffle(order, epoch, first, share))
        assert len(found) == n_own * (order.n_minibatches - first)
        assert_same_all(found, soma.shuffle(order, epoch, first, share))
        minibatches = order.draw(epoch).minibatches(first)
        wanted = [part for rows in minibatches for part in share.cut(rows)]
        for minibatch, rows in zip(found, wanted, strict=True):
            assert minibatch.joinid.tolist() == packed.joinid_n[rows].tolist()


def test_weights_of_both_sources_are_the_same(backward):
    weight_c = np.array([0.4, 2.3])
    with open_both(backward) as (packed, soma):
        orders = [source.order(20, 5, weight_c) for source in (packed, soma)]
        assert orders[0].weight_before_b.tolist() == orders[1].weight_before_b.tolist()
        assert_same_all(packed.shuffle(orders[0], 2), soma.shuffle(orders[1], 2))


def test_threads_change_nothing(backward):
    found = []
    for threads in (1, 2, 4):
        with open_both(backward, Reading(threads=threads)) as (packed, soma):
            order = packed.order(9, seed=0)
            found += [list(packed.shuffle(order, 0)), list(soma.shuffle(order, 0))]
    for other in found[1:]:
        assert_same_all(found[0], other)


def test_another_order_of_the_genes_permutes_them(backward):
    with open_experiment(backward.manifest) as experiment:
        genes = experiment.read_var()[names.FEATURE_ID]
        chosen = np.random.default_rng(0).permutation(len(genes))[:30]
        source = SomaSource(experiment, np.arange(40)[::-1], genes.iloc[chosen])
        found = source.read(np.arange(40)).to_csr(30)
        wanted = experiment.read_counts(np.arange(40)[::-1])[:, chosen]
        assert torch.equal(source.presence, torch.from_numpy(experiment.read_presence()[:, chosen]))
    assert (found != wanted).nnz == 0


def test_a_row_in_several_pieces_is_put_together(gappy):
    with open_experiment(gappy.manifest) as experiment:
        source = SomaSource(experiment, GAPS[::-1], pd.Series(gene_ids(40)))
        assert source.reader.take(GAPS) is None
        found = source.read(np.arange(len(GAPS))).to_csr(40)
        assert (found != experiment.read_counts(GAPS[::-1])).nnz == 0
        assert found.has_sorted_indices


def test_rows_of_any_length_come_whole(tmp_path):
    """The compiled loops go by blocks of 64 entries."""
    length_n = np.array([0, 1, 63, 64, 65, 127, 128, 129, 300, 0, 192, 191, 300])
    rows = np.repeat(np.arange(len(length_n)), length_n)
    genes = np.concatenate([np.arange(300)[-length:] for length in length_n if length])
    shape = (len(length_n), 300)
    counts = sp.csr_matrix((1 + (rows * 7 + genes) % 90, (rows, genes)), shape, dtype=np.int32)
    own = GAPS[: len(length_n)]
    with open_experiment(make_gappy(tmp_path, counts).manifest) as experiment:
        for wanted in (np.arange(300), np.arange(0, 300, 7), np.arange(299, 200, -1)):
            source = SomaSource(experiment, own[::-1], pd.Series(gene_ids(300)).iloc[wanted])
            assert source.reader.take(own) is not None
            found = source.read(np.arange(len(own))).to_csr(len(wanted))
            assert (found != counts[::-1][:, wanted]).nnz == 0


def test_stored_zeros_move_no_entry(tmp_path):
    counts = make_counts("a", len(GAPS), 32, density=0.3)
    counts.data[counts.indices < 16] = 0
    atlas = make_gappy(tmp_path, counts, tile=16)
    with open_experiment(atlas.manifest) as experiment:
        source = SomaSource(experiment, GAPS, pd.Series(gene_ids(32)))
        found = source.read(np.arange(len(GAPS))).to_csr(32)
    assert (found != counts).nnz == 0


@pytest.mark.parametrize(
    ("place", "value"), [(1, 40), (1, -1), (1, 1 << 40), (0, 4), (0, -3), (0, 10**9)]
)
def test_an_index_that_there_is_not_is_an_error(backward, place, value):
    """TileDB gives whatever a damaged file holds."""
    with open_experiment(backward.manifest) as experiment:
        n_genes = experiment.counts.shape[1]
        source = SomaSource(
            experiment, np.arange(0, 40, 3), experiment.read_var()[names.FEATURE_ID]
        )

        def damage(joinids):
            for entries in type(experiment).iterate_entries(experiment, joinids):
                changed = [values.copy() for values in entries]
                changed[place][5] = value if value != 40 else n_genes
                yield changed

        experiment.iterate_entries = damage
        with pytest.raises(IntegrityError, match="X gives genes or cells that it does not have"):
            source.read(np.arange(10))


def test_an_empty_cell_comes_empty(gappy):
    with open_both(gappy) as (packed, soma):
        row = np.flatnonzero(packed.joinid_n == GAPS[5])
        for source in (packed, soma):
            minibatch = source.read(row)
            assert minibatch.indptr.tolist() == [0, 0]
            assert minibatch.total_n.tolist() == [0]


def test_more_micro_batches_than_cells_leave_some_with_none(backward):
    with open_both(backward) as (packed, soma):
        order = packed.order(2, seed=0)
        for source in (packed, soma):
            assert_same_all(packed.shuffle(order, 0), share_out(source, order, 0, 4, 1))


def test_no_cells_give_no_minibatch_and_an_empty_one(backward):
    with open_both(backward) as (packed, soma):
        none = np.zeros(0, dtype=np.int64)
        assert_same(packed.read(none), soma.read(none))
        assert list(packed.iterate(none, 8)) == []
