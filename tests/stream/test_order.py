import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas.stream.order import UNIT, Order, Plan, Share

PLAN = Plan(block_cells=8, buffer_cells=64)
plans = st.builds(Plan, st.integers(1, 40), st.integers(1, 300))


def all_rows(order, epoch=0, first=0):
    return [rows.tolist() for rows in order.draw(epoch).minibatches(first)]


def constant(weight):
    return lambda rows: np.full(len(rows), round(weight * UNIT), dtype=np.int64)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 100), plans, st.integers(0, 3))
def test_every_cell_stands_in_exactly_one_minibatch(n_cells, batch_size, plan, epoch):
    order = Order(n_cells, batch_size, plan, seed=0)
    found = all_rows(order, epoch)
    assert len(found) == order.n_minibatches == -(-n_cells // batch_size)
    assert sorted(row for rows in found for row in rows) == list(range(n_cells))
    sizes = [len(rows) for rows in found] or [0]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


@settings(deadline=None)
@given(plans, st.integers(0, 20), st.integers(1, 90))
def test_resuming_is_a_seek(plan, first, batch_size):
    order = Order(300, batch_size, plan, seed=1)
    assert all_rows(order, 2, first) == all_rows(order, 2)[first:]


def test_a_seek_reads_no_earlier_buffer(monkeypatch):
    epoch = Order(1000, 50, PLAN, seed=0).draw(0)
    read, numbers = epoch.read_buffer, []
    monkeypatch.setattr(epoch, "read_buffer", lambda one: numbers.append(one) or read(one))
    next(epoch.minibatches(12))
    assert min(numbers) == epoch.find_buffers(12).start > 5


def test_the_order_depends_on_seed_epoch_and_plan_alone():
    def rows(seed, epoch, plan=PLAN):
        return all_rows(Order(500, 64, plan, seed), epoch)

    first = rows(0, 0)
    assert first == rows(0, 0)
    others = [rows(0, 1), rows(1, 0), rows(0, 0, Plan(8, 128)), rows(0, 0, Plan(7, 64))]
    assert all(first != other for other in others)


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 4, 12, 50])
def test_ranks_share_the_micro_batches_of_every_minibatch(micro_batches):
    for rows in Order(203, 32, PLAN, seed=0).draw(0).minibatches():
        whole = Share(micro_batches=micro_batches).cut(rows)
        assert len(whole) == micro_batches
        np.testing.assert_array_equal(np.concatenate(whole), rows)
        sizes = list(map(len, whole))
        assert max(sizes) - min(sizes) <= 1
        for world in range(1, 5):
            if micro_batches % world:
                continue
            shares = [Share(rank, world, micro_batches) for rank in range(world)]
            assert {one.n_own for one in shares} == {micro_batches // world}
            found = [part.tolist() for share in shares for part in share.cut(rows)]
            assert found == [part.tolist() for part in whole]


def test_a_share_that_there_is_not_is_a_bug():
    for share in [(2, 2, 2), (-1, 1, 1), (0, 2, 1), (0, 2, 3)]:
        with pytest.raises(AssertionError):
            Share(*share)


def test_cells_of_one_block_are_not_neighbors():
    rows = np.concatenate(list(Order(4096, 256, Plan(16, 1024), seed=0).draw(0).minibatches()))
    assert (np.diff(rows) == 1).mean() < 0.01
    assert abs(np.corrcoef(rows, np.arange(4096))[0, 1]) < 0.1


def test_what_is_kept_grows_with_blocks_not_with_cells():
    order = Order(10**9, 1024, Plan(1 << 20, 1 << 22), seed=0, weigh=None)
    assert order.weight_before_b.nbytes < 10_000
    assert order.draw(0).block_b.nbytes < 10_000


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.5])
def test_a_cell_stands_as_often_as_it_weighs(weight):
    order = Order(400, 32, PLAN, seed=0, weigh=constant(weight))
    times = np.zeros((50, 400), dtype=int)
    for epoch in range(50):
        for rows in order.draw(epoch).minibatches():
            np.add.at(times[epoch], rows, 1)
    assert set(np.unique(times)) <= {int(np.floor(weight)), int(np.ceil(weight))}
    np.testing.assert_allclose(times.mean(axis=0), weight, atol=0.25)
    assert np.ptp(times.sum(axis=1)) <= 1


def test_all_epochs_of_a_weighted_order_have_as_many_minibatches():
    def weigh(rows):
        return (rows % 7) * (UNIT // 3)

    order = Order(500, 32, PLAN, seed=0, weigh=weigh)
    found = [all_rows(order, epoch) for epoch in range(5)]
    assert {len(one) for one in found} == {order.n_minibatches}
    assert found[2][4:] == all_rows(order, 2, 4)
    assert all(row % 7 for one in found for rows in one for row in rows)


def test_weights_of_nothing_give_no_minibatch():
    assert all_rows(Order(100, 10, PLAN, seed=0, weigh=constant(0))) == []
