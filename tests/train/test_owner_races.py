import contextlib
import fcntl
import os
import random
import shutil
import signal
import time

import pytest
import torch
from owners import FORK, leave_record, list_names, time_own

from tabatlas.errors import Interrupted
from tabatlas.train import owner as owner_module
from tabatlas.train.checkpoint import write_checkpoint
from tabatlas.train.owner import Owner, own, path_of

pytestmark = pytest.mark.usefixtures("pace")


# Eight at once


def race(folder, pipe):
    try:
        with own(folder) as owner:
            pipe.send(owner.token)
            pipe.recv()
    except Interrupted:
        pipe.send(None)


def start_eight(folder):
    """Eight processes at once; returns the tokens of those that came to own the run."""
    pairs = [FORK.Pipe() for _ in range(8)]
    racers = [FORK.Process(target=race, args=(folder, theirs), daemon=True) for _, theirs in pairs]
    for racer in racers:
        racer.start()
    assert all(mine.poll(30) for mine, _ in pairs)
    tokens = [mine.recv() for mine, _ in pairs]
    for mine, _ in pairs:
        mine.send("end")
    for racer in racers:
        racer.join()
    return [token for token in tokens if token is not None]


@pytest.mark.parametrize("repeat", range(3))
def test_of_eight_at_once_one_owns_and_seven_are_refused(tmp_path, repeat):
    assert start_eight(tmp_path) == [1]
    assert start_eight(tmp_path) == [2]
    assert list_names(tmp_path) == ["owner-000002.json"]


@pytest.mark.parametrize("repeat", range(3))
def test_of_eight_at_once_one_follows_a_killed_owner(tmp_path, start, repeat):
    child = start(tmp_path)
    child.hear()
    child.kill()
    assert start_eight(tmp_path) == [2]


def test_of_eight_at_once_one_follows_a_dead_owner_of_another_host(tmp_path, pace):
    pace(lease=2)
    leave_record(tmp_path, place="elsewhere")
    assert start_eight(tmp_path) == [4]


def link_in_turn(link):
    """Every racer has made up its mind before the first one links; then one after another."""
    gate, places = FORK.Barrier(8), []

    def wait_and_link(source, target):
        if not places:
            places.append(gate.wait(20))
            time.sleep(0.1 * places[0])
        link(source, target)

    return wait_and_link


def test_who_decided_on_the_same_token_does_not_own_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", link_in_turn(os.link))
    assert start_eight(tmp_path) == [1]


def test_without_the_exclusive_link_several_would_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", link_in_turn(shutil.copy2))
    assert len(start_eight(tmp_path)) > 1


def test_a_token_long_past_is_not_owned(tmp_path, monkeypatch):
    link = os.link

    def link_late(source, target):
        monkeypatch.setattr(os, "link", link)
        for _ in range(3):
            time_own(tmp_path)
        link(source, target)  # the files of these tokens were removed

    assert time_own(tmp_path)[0] == 1
    monkeypatch.setattr(os, "link", link_late)
    assert time_own(tmp_path)[0] == 5
    assert list_names(tmp_path) == ["owner-000005.json"]


def test_a_file_that_is_removed_as_it_is_read_is_nobodys(tmp_path, monkeypatch):
    list_tokens, memories = owner_module.list_tokens, [[3]]

    def remember(folder):
        return memories.pop() if memories else list_tokens(folder)

    monkeypatch.setattr(owner_module, "list_tokens", remember)
    assert time_own(tmp_path)[0] == 4


def test_a_link_that_reports_failure_but_was_made_counts(tmp_path, monkeypatch):
    link = os.link

    def link_twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    assert time_own(tmp_path)[0] == 1


def enter_again_and_again(folder, referee, until, seed, pipe):
    """Own the run over and over; the referee's lock must be free each time."""
    draws, entered, clashes = random.Random(seed), 0, 0
    while time.monotonic() < until:
        with contextlib.suppress(Interrupted), own(folder) as owner, open(referee, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                clashes += 1
            time.sleep(draws.uniform(0, 0.02))
            owner.check()
            entered += 1
            if draws.random() < 0.2:
                pipe.send((entered, clashes))
                os.kill(os.getpid(), signal.SIGKILL)
    pipe.send((entered, clashes))


def test_owners_that_come_go_and_die_by_the_dozen_never_meet(tmp_path):
    until, seeds = time.monotonic() + 4, iter(range(10_000))
    mine, theirs = FORK.Pipe(duplex=False)
    folder, referee, running = tmp_path / "run", tmp_path / "referee", []
    while time.monotonic() < until:
        running = [one for one in running if one.is_alive()]
        while len(running) < 6:
            args = (folder, referee, until, next(seeds), theirs)
            running.append(FORK.Process(target=enter_again_and_again, args=args, daemon=True))
            running[-1].start()
        time.sleep(0.01)
    for one in running:
        one.join()
    counts = []
    while mine.poll():
        counts.append(mine.recv())
    assert sum(clashes for _, clashes in counts) == 0
    assert sum(entered for entered, _ in counts) > 20
    assert len([name for name in list_names(folder) if name.startswith("owner")]) == 1


# Fencing


def snapshot(folder, but):
    """Bytes and time of every file, without the time of the one whose owner beats."""
    return {
        path.name: (path.read_bytes(), path != but and path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }


def wake_after_takeover(folder, child):
    """Stop an owner, take its run over, wake it and let it write: what it says and has changed."""
    assert child.hear() == 1
    child.ask("write")
    assert child.hear() == "written"
    time.sleep(random.Random(child.pid).uniform(0, 0.05))
    os.kill(child.pid, signal.SIGSTOP)
    with own(folder) as owner:
        before = snapshot(folder, owner.path)
        child.ask("write")
        os.kill(child.pid, signal.SIGCONT)
        said = child.hear()
        child.ask("end")
        child.process.join(30)
        owner.check()
        assert snapshot(folder, owner.path) == before
    return said


@pytest.mark.parametrize("repeat", range(5))
def test_an_owner_that_wakes_after_a_takeover_writes_nothing(tmp_path, start, pace, repeat):
    pace(beat=0.02, lease=1)
    child = start(tmp_path)
    said = wake_after_takeover(tmp_path, child)
    assert "taken for dead" in said
    assert f"token 2, host {os.uname().nodename}, pid {os.getpid()}" in said
    assert child.process.exitcode == 75


def test_without_fencing_a_woken_owner_would_write(tmp_path, start, pace, monkeypatch):
    pace(beat=0.02, lease=1)
    monkeypatch.setattr(Owner, "check", lambda self: None)
    with pytest.raises(AssertionError, match="weights-1"):
        wake_after_takeover(tmp_path, start(tmp_path))


def test_without_heartbeats_an_owner_would_lose_its_run(tmp_path, start, pace, monkeypatch):
    pace(lease=1)
    monkeypatch.setattr(Owner, "beat", lambda self: None)
    assert start(tmp_path).hear() == 1
    assert time_own(tmp_path)[0] == 2


def remove_file(folder):
    path_of(folder, 1).unlink()


def begin_anew(folder):
    shutil.rmtree(folder)
    time_own(folder)


def put_another(folder):
    leave_record(folder, token=1)


@pytest.mark.parametrize("fault", [remove_file, shutil.rmtree, begin_anew, put_another])
def test_an_owner_whose_file_or_folder_is_gone_stops(tmp_path, fault):
    folder = tmp_path / "run"
    with own(folder) as owner:
        owner.check()
        fault(folder)
        with pytest.raises(Interrupted, match="again"):
            owner.check()
        before = folder.exists() and snapshot(folder, None)
        time.sleep(0.15)
    assert before == (folder.exists() and snapshot(folder, None))


def test_a_check_says_when_the_next_owner_has_ended_too(tmp_path, monkeypatch):
    with own(tmp_path) as owner:
        path_of(tmp_path, 2).touch()
        with pytest.raises(Interrupted, match="token 2, ended since"):
            owner.check()


def test_a_takeover_just_after_the_last_look_is_fenced_too(tmp_path, monkeypatch):
    def look_and_lose(owner):
        owner.path.unlink(missing_ok=True)
        path_of(tmp_path, 2).write_text("the next owner")
        return True

    with own(tmp_path):
        # The heartbeat and the release believe that nothing has happened.
        monkeypatch.setattr(Owner, "is_newest", look_and_lose)
        time.sleep(0.15)
    assert list_names(tmp_path) == ["owner-000002.json"]
    assert path_of(tmp_path, 2).read_text() == "the next owner"


# Asleep between the last look and the rename


class Sleepy:
    """An owner that falls asleep right after it looked for the last time, until it is followed."""

    def __init__(self, owner, follow):
        self.owner, self.token, self.follow = owner, owner.token, follow
        self.n_looks = 0

    def check(self):
        self.owner.check()
        self.n_looks += 1
        if self.n_looks == 2:  # before the rename
            self.follow()


def test_who_sleeps_between_the_last_look_and_the_rename_names_nothing(tmp_path, pace):
    pace(beat=60.0)
    with own(tmp_path) as old, contextlib.ExitStack() as later:

        def follow():
            os.utime(old.path, (0, 0))
            later.enter_context(own(tmp_path))

        with pytest.raises(Interrupted, match=r"token 1\) was taken for dead"):
            write_checkpoint(tmp_path, 5, {"a": torch.ones(3)}, {}, Sleepy(old, follow))
        assert list_names(tmp_path) == ["owner-000002.json"]
        with pytest.raises(Interrupted):
            old.check()
