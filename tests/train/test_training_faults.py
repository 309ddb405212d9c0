"""Faults of a real training, in processes of its own. See also `tests/benchmarks/faults.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fork_server import ForkServer
from kills import Reference, kill_runs, make_reference, summarize
from rank_faults import HANG_MINUTES, end_all, lose_ranks, snapshot, start_ranks
from small_run import SmallRun, open_process

from tabatlas.stream.packed import PackedSource

# Twenty steps: what does not need more.
SHORT = {"epochs": 4}
QUICK_LEASE = {"LEASE_SECONDS": "2"}


@pytest.fixture(scope="module")
def server():
    with ForkServer() as started:
        yield started


@pytest.fixture(scope="module")
def short(atlas, server, tmp_path_factory) -> Reference:
    return make_reference(atlas.pack, tmp_path_factory.mktemp("short") / "run", server, **SHORT)


@pytest.fixture
def run(atlas, tmp_path) -> SmallRun:
    return SmallRun(atlas.pack, tmp_path / "run", **SHORT)


def read_metrics(run: SmallRun) -> list[dict]:
    return [json.loads(line) for line in (run.kept / "metrics.jsonl").read_text().splitlines()]


def finish(run: SmallRun, server: ForkServer, wanted: Reference, **environment: str) -> str:
    """Let the run go on to its end, which must be that of the undisturbed one."""
    attempt = run.start(server, **environment)
    assert attempt.end() == 0, attempt.said()
    assert run.ending() == wanted.ending
    assert run.unexpected() == []
    return attempt.said()


def test_the_marks_of_the_tests_change_nothing(atlas, run, short):
    """The command itself, without marks or forks, gives the same files."""
    command = [Path(sys.executable).parent / "tabatlas", *run.arguments]
    assert open_process(command, run.folder / "log", {}).wait() == 0
    assert run.ending() == short.ending


@pytest.mark.parametrize("n_kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_random_ends_as_if_it_had_not_been(
    atlas, server, tmp_path, n_kills
):
    wanted = make_reference(atlas.pack, tmp_path / "undisturbed", server)
    n_threads = min(2, n_kills // 10)
    stories = kill_runs(atlas.pack, tmp_path, wanted, n_kills, seed=n_kills, n_threads=n_threads)
    found = summarize(stories)
    assert found["kills"] == n_kills
    assert found["identical"] == found["runs"], found
    assert found["checkpoints_lost"] == 0
    assert found["complaints"] == []
    assert len(found["killed_in"]) > 2


def test_signals_in_the_middle_of_a_checkpoint_do_it_no_harm(run, server, short):
    attempt = run.start(server)
    attempt.await_phase("checkpoint", 2)
    for _ in range(5):
        attempt.signal(signal.SIGTERM)
        time.sleep(0.002)
    assert attempt.end() == 75, attempt.said()
    assert "stopped by SIGTERM at step" in attempt.said().splitlines()[-1]
    assert "Traceback" not in attempt.said()
    assert "resuming at" in finish(run, server, short)


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGUSR1, "step"),
        *(
            pytest.param(number, phase, marks=pytest.mark.slow)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
            for phase in ("restore", "step", "validation", "checkpoint", "renamed", "metrics")
        ),
    ],
)
def test_after_a_signal_nothing_is_done_twice(run, server, short, number, phase):
    attempt = run.start(server)
    attempt.await_phase(phase, 1 if phase == "restore" else 3)
    attempt.signal(number)
    assert attempt.end() == 75, attempt.said()
    done = int(attempt.marks["step"])
    assert len([row for row in read_metrics(run) if "loss" in row]) == done
    again = run.start(server)
    assert again.end() == 0
    assert int(again.marks["restored"]) == done
    assert run.ending() == short.ending


def test_a_validation_may_take_longer_than_any_rank_may_hang(atlas, tmp_path, server):
    knobs = {"epochs": 1, "batch_size": 8, "hang_minutes": HANG_MINUTES}
    run = SmallRun(atlas.pack, tmp_path / "run", **knobs)
    attempts = start_ranks(run, server, 2, VALIDATION_SECONDS="3")
    assert end_all(attempts, 120) == [0, 0], attempts[0].said()
    assert attempts[1].marks.mean_seconds("validation") > 60 * HANG_MINUTES + 1


def test_a_signal_to_any_rank_breaks_off_a_validation(run, server, short):
    attempts = start_ranks(run, server, 2, VALIDATION_SECONDS="1")
    attempts[1].await_phase("validation")
    attempts[1].signal(signal.SIGTERM)
    assert end_all(attempts, 120) == [75, 75], attempts[0].said()
    assert not [row for row in read_metrics(run) if "validation_loss" in row]
    finish(run, server, short)


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_more_ranks_give_the_same_bytes(run, server, short, world):
    attempts = start_ranks(run, server, world)
    assert end_all(attempts, 120) == [0] * world, attempts[0].said()
    assert run.ending() == short.ending


@pytest.mark.slow
def test_a_sum_over_ranks_in_any_order_sees_the_same_cells(atlas, tmp_path, server):
    runs = [SmallRun(atlas.pack, tmp_path / f"{n}", **SHORT, reduction="allreduce") for n in (1, 2)]
    for run, world in zip(runs, (1, 2), strict=True):
        assert end_all(start_ranks(run, server, world), 120) == [0] * world
    one, two = ([row for row in read_metrics(run) if "cells" in row] for run in runs)
    assert [row["cells"] for row in one] == [row["cells"] for row in two]
    # Of 50 steps the losses differ by 4e-7 at most; a wrong share of a gradient would be percents.
    losses = ([row["loss"] for row in rows] for rows in (one, two))
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 12))]
)
def test_a_run_that_loses_ranks_ends_the_same_with_fewer(atlas, tmp_path, server, short, seed):
    run = SmallRun(atlas.pack, tmp_path / "run", **SHORT, hang_minutes=HANG_MINUTES)
    story = lose_ranks(run, server, short, np.random.default_rng(seed))
    assert story.identical, story
    assert not story.complaint, story
    assert story.lost == 0
    assert set(story.codes) <= {75}, story


@pytest.mark.slow
def test_of_eight_trainers_one_trains(run, server, short):
    # A heartbeat that comes before the short training is over: who looks then is refused.
    attempts = [run.start(server, LEASE_SECONDS="5") for _ in range(8)]
    codes = end_all(attempts, 120)
    assert sorted(codes) == [0] + [75] * 7
    for attempt in attempts:
        if attempt.process.returncode:
            assert "another process owns this run and is alive" in attempt.said()
            assert attempt.marks.entered("step") == 0
    assert run.ending() == short.ending


@pytest.mark.parametrize(
    "phase",
    [
        "step",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("restore", "validation", "checkpoint", "renamed", "metrics", "between")
        ),
    ],
)
def test_an_owner_that_slept_through_a_takeover_writes_nothing(run, server, short, phase):
    asleep = run.start(server, **QUICK_LEASE)
    asleep.await_phase(phase, 1 if phase == "restore" else 3)
    asleep.signal(signal.SIGSTOP)
    assert "taken over" in finish(run, server, short, **QUICK_LEASE)
    before = snapshot(run.kept)
    asleep.signal(signal.SIGCONT)
    assert asleep.end() == 75, asleep.said()
    assert "has another owner" in asleep.said().splitlines()[-1]
    assert snapshot(run.kept) == before


@pytest.mark.slow
def test_an_owner_that_sleeps_keeps_others_out_no_longer_than_its_lease(run, server, short):
    asleep = run.start(server, **QUICK_LEASE)
    asleep.await_phase("step", 3)
    asleep.signal(signal.SIGSTOP)
    begin = time.monotonic()
    second = run.start(server, **QUICK_LEASE)
    second.await_phase("step")
    assert time.monotonic() - begin > 1.5
    asleep.signal(signal.SIGCONT)  # both are awake now, and one of them is the owner
    assert asleep.end() == 75
    assert second.end() == 0
    assert run.ending() == short.ending


def test_a_loss_that_is_no_number_saves_its_cells(atlas, run, server):
    attempt = run.start(server, NAN_STEP="29")  # micro-batch 1 of step 7
    assert attempt.end() == 4, attempt.said()
    assert "the loss is nan" in attempt.said().splitlines()[-1]
    (path,) = run.kept.glob("not-finite-*")
    source = PackedSource(atlas.pack, "train")
    epoch = list(source.order(32, 0).draw(1).minibatches())
    joinid = source.read(epoch[2]).joinid.tolist()
    found = json.loads(path.read_text())
    assert (found["epoch"], found["step"]) == (1, 7)
    assert [one for part in found["joinids"] for one in part] == joinid


@pytest.mark.slow
def test_of_ranks_each_saves_its_cells_where_the_loss_is_no_number(run, server):
    attempts = start_ranks(run, server, 2, NAN_STEP="15")
    assert end_all(attempts, 120) == [4, 4], attempts[0].said()
    assert len(list(run.kept.glob("not-finite-*"))) == 2


def test_a_checkpoint_that_finds_no_room_ends_the_run_resumably(run, server, short):
    stop_after(run, server, "checkpoint", 3)
    good = {path.name: path.read_bytes() for path in run.kept.glob("checkpoint-*")}
    second = run.start(server, MOST_FILE_BYTES="100000")
    assert second.end() == 75, second.said()
    message = second.said().splitlines()[-1]
    assert max(good) in message
    assert "File too large" in message
    assert "Traceback" not in second.said()
    assert {path.name: path.read_bytes() for path in run.kept.glob("checkpoint-*")} == good
    finish(run, server, short)


def stop_after(run: SmallRun, server: ForkServer, phase: str, nth: int) -> None:
    """An attempt that is killed when it enters a phase."""
    attempt = run.start(server)
    attempt.await_phase(phase, nth)
    attempt.signal(signal.SIGKILL)
    assert attempt.end() == -signal.SIGKILL


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(run, server, short):
    stop_after(run, server, "checkpoint", 5)
    before, newest = sorted(run.kept.glob("checkpoint-*"))
    flip_bit(newest)
    said = finish(run, server, short)
    assert str(newest) in said
    assert f"step {int(before.name.split('-')[1])}" in said


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_from_zero(run, server):
    stop_after(run, server, "checkpoint", 5)
    for path in run.kept.glob("checkpoint-*"):
        flip_bit(path)
    attempt = run.start(server)
    assert attempt.end() == 4
    assert "are damaged" in attempt.said().splitlines()[-1]
    assert attempt.marks.entered("step") == 0


@pytest.fixture
def small_disk(mount_disk) -> Path:
    return mount_disk(5_000_000)


@pytest.fixture
def run_on_disk(run, small_disk) -> SmallRun:
    """A run whose checkpoints, and nothing else, lie on a file system of their own."""
    (run.folder / "checkpoints").symlink_to(small_disk)
    return run


@pytest.mark.slow
def test_a_full_disk_ends_the_run_resumably(run_on_disk, small_disk, server, short):
    attempt = run_on_disk.start(server)
    attempt.await_phase("between", 4)
    ballast = small_disk / "ballast"
    with open(ballast, "wb") as file:
        free = os.statvfs(small_disk)
        file.write(bytes(free.f_bavail * free.f_bsize - 100_000))
    assert attempt.end() == 75, attempt.said()
    message = attempt.said().splitlines()[-1]
    assert "No space left on device" in message
    assert f"checkpoint-{int(attempt.marks['durable']):010d}" in message
    ballast.unlink()
    finish(run_on_disk, server, short)


@pytest.mark.slow
def test_a_disk_that_can_only_be_read_ends_the_run_resumably(
    run_on_disk, small_disk, server, short
):
    attempt = run_on_disk.start(server)
    attempt.await_phase("checkpoint", 3)
    remount = ["mount", "-o", "remount,ro", small_disk]
    while subprocess.run(remount, capture_output=True).returncode:  # a file is being written
        assert attempt.is_running(), attempt.said()
    assert attempt.end() == 75, attempt.said()
    message = attempt.said().splitlines()[-1]
    assert "Read-only file system" in message
    assert f"checkpoint-{int(attempt.marks['durable']):010d}" in message
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    finish(run_on_disk, server, short)


@pytest.mark.slow
def test_a_first_rank_that_slept_through_a_takeover_writes_nothing(atlas, tmp_path, server, short):
    run = SmallRun(atlas.pack, tmp_path / "run", **SHORT, hang_minutes=HANG_MINUTES)
    asleep, other = start_ranks(run, server, 2, **QUICK_LEASE)
    asleep.await_phase("checkpoint", 3)
    asleep.signal(signal.SIGSTOP)
    assert other.end() == 75
    assert "taken over" in finish(run, server, short, **QUICK_LEASE)
    before = snapshot(run.kept)
    asleep.signal(signal.SIGCONT)
    assert asleep.end() == 75, asleep.said()
    assert snapshot(run.kept) == before


@pytest.mark.slow
def test_torchrun_starts_ranks(run, short):
    bin_folder = Path(sys.executable).parent
    command = [bin_folder / "torchrun", "--standalone", "--nproc-per-node", "4", "--no-python"]
    command += [bin_folder / "tabatlas", *run.arguments]
    process = open_process(command, run.folder / "log", {"OMP_NUM_THREADS": "1"})
    assert process.wait(300) == 0, (run.folder / "log").read_text()
    assert run.ending() == short.ending
