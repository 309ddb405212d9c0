import builtins
import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict

import pytest

from tabatlas.errors import Interrupted
from tabatlas.train import owner as owner_module
from tabatlas.train.owner import Owner, Process, describe_process, own, path_of, read_newest

# Forked children keep what a test has patched.
FORK = multiprocessing.get_context("fork")
LONG = 20.0  # a lease that no test waits for


@pytest.fixture(autouse=True)
def pace(monkeypatch):
    """Heartbeats and a lease in the time of a test; call it with other ones."""

    def choose(beat=0.05, lease=LONG):
        monkeypatch.setattr(owner_module, "BEAT", beat)
        monkeypatch.setattr(owner_module, "LEASE", lease)

    choose()
    return choose


class Child:
    """A process that owns the run and then does as it is told, one word at a time."""

    def __init__(self, folder):
        self.pipe, end = FORK.Pipe()
        self.process = FORK.Process(target=live, args=(folder, end), daemon=True)
        self.process.start()
        self.pid = self.process.pid

    def ask(self, word):
        self.pipe.send(word)

    def hear(self):
        assert self.pipe.poll(30), "the child is silent"
        return self.pipe.recv()

    def kill(self):
        self.process.kill()
        self.process.join()


def live(folder, pipe):
    try:
        with own(folder) as owner:
            pipe.send(owner.token)
            while pipe.recv() == "write":
                owner.check()
                (folder / f"weights-{owner.token}").write_text("bytes")
                pipe.send("written")
    except Interrupted as stop:
        pipe.send(str(stop))
        sys.exit(stop.exit_code)


@pytest.fixture
def start():
    """Start children, all of which end with the test."""
    children = []

    def begin(folder):
        children.append(Child(folder))
        return children[-1]

    yield begin
    for child in children:
        child.kill()


def leave_record(folder, token=3, age=0.0, **changes):
    """The file of an owner that nobody keeps alive."""
    path = path_of(folder, token)
    path.write_text(json.dumps(asdict(describe_process()) | changes))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def time_own(folder):
    """Own a run: the token, and the seconds that it took."""
    began = time.monotonic()
    with own(folder) as owner:
        return owner.token, time.monotonic() - began


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


# One at a time


def test_the_owner_has_one_file_and_leaves_it_empty(tmp_path):
    with own(tmp_path / "new" / "run") as owner:
        assert list_names(owner.folder) == ["owner-000001.json"]
        assert owner.token == 1
        owner.check()
    assert owner.path.read_bytes() == b""
    with pytest.raises(Interrupted, match="removed or replaced"):
        owner.check()


def test_a_released_run_is_owned_at_once_under_the_next_token(tmp_path):
    for token in (1, 2, 3):
        assert time_own(tmp_path)[0] == token
    assert time_own(tmp_path)[1] < 1
    assert list_names(tmp_path) == ["owner-000004.json"]


def test_an_error_in_the_block_releases_the_run_too(tmp_path):
    with pytest.raises(ZeroDivisionError), own(tmp_path):
        raise ZeroDivisionError
    assert time_own(tmp_path)[1] < 1


def test_a_second_process_is_refused_and_told_by_whom(tmp_path, start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    child = start(tmp_path)
    assert child.hear() == 1
    before = list_names(tmp_path)
    with pytest.raises(Interrupted) as stop, own(tmp_path):
        pass
    assert stop.value.exit_code == 75
    for part in (str(tmp_path), os.uname().nodename, f"pid {child.pid}", "Slurm job 77", "again"):
        assert part in str(stop.value)
    child.ask("write")
    assert child.hear() == "written"
    assert list_names(tmp_path) == sorted([*before, "weights-1"])


def test_a_waiting_process_starts_when_the_owner_is_released(tmp_path, start, pace):
    pace(beat=2)
    child = start(tmp_path)
    child.hear()
    threading.Timer(0.3, child.ask, ["end"]).start()
    assert time_own(tmp_path)[0] == 2


def test_two_threads_of_one_process_do_not_both_own(tmp_path):
    with own(tmp_path), pytest.raises(Interrupted), own(tmp_path):
        pass


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


# Dead owners


def test_a_killed_owner_of_this_host_is_followed_at_once(tmp_path, start):
    child = start(tmp_path)
    child.hear()
    child.kill()
    token, seconds = time_own(tmp_path)
    assert token == 2
    assert seconds < 2


def test_a_killed_owner_that_nobody_has_waited_for_is_dead(tmp_path, start):
    child = start(tmp_path)
    child.hear()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert time_own(tmp_path)[1] < 2


def test_a_pid_that_another_process_has_now_is_no_owner(tmp_path):
    leave_record(tmp_path, start="1")
    token, seconds = time_own(tmp_path)
    assert token == 4
    assert seconds < 1


@pytest.mark.parametrize(
    "changes",
    [
        {"place": "another boot", "pid": 2**22 - 1},
        {"place": None},
        {"host": "elsewhere", "place": "elsewhere", "start": "1"},
    ],
)
def test_an_owner_of_another_place_is_followed_after_its_lease(tmp_path, pace, caplog, changes):
    pace(lease=0.6)
    leave_record(tmp_path, **changes)
    token, seconds = time_own(tmp_path)
    assert token == 4
    assert 0.5 < seconds < 5
    assert "no sign of life" in caplog.text
    assert f"pid {changes.get('pid', os.getpid())}" in caplog.text


def test_an_owner_whose_lease_is_long_over_is_followed_at_once(tmp_path):
    leave_record(tmp_path, place="elsewhere", age=3600)
    assert time_own(tmp_path)[1] < 1


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_a_lease(tmp_path, pace):
    pace(lease=0.6)
    leave_record(tmp_path, place="elsewhere", age=-30)
    assert 0.5 < time_own(tmp_path)[1] < 5


def test_an_owner_of_another_host_that_beats_is_refused(tmp_path):
    path = leave_record(tmp_path, place="elsewhere", host="node7")
    threading.Timer(0.3, os.utime, [path]).start()
    with pytest.raises(Interrupted, match="node7"), own(tmp_path):
        pass


def test_a_damaged_file_counts_as_an_owner_until_its_lease_is_over(tmp_path, pace, caplog):
    pace(lease=0.6)
    path_of(tmp_path, 3).write_text("{")
    assert time_own(tmp_path)[0] == 4
    assert "unknown, its file is damaged" in caplog.text


def test_a_process_that_another_user_hides_is_not_taken_for_dead(monkeypatch):
    def refuse_signal(pid, number):
        raise PermissionError

    record = describe_process()
    monkeypatch.setattr(os, "kill", refuse_signal)
    monkeypatch.setattr(owner_module, "read_process", lambda pid: None)
    assert not record.has_ended()


def test_a_killed_process_is_dead_only_when_its_last_thread_is(monkeypatch):
    record = describe_process()
    for n_threads, ended in ((2, False), (1, True), (0, True)):
        seen = Process("Z", n_threads, record.start)
        monkeypatch.setattr(owner_module, "read_process", lambda pid, seen=seen: seen)
        assert record.has_ended() is ended


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


# The heartbeat


def test_the_heartbeat_survives_a_file_system_that_is_away(tmp_path, monkeypatch):
    utime, calls = os.utime, []

    def fail_at_first(path, *args):
        if path == path_of(tmp_path, 1):
            calls.append(path)
            if len(calls) < 4:
                raise OSError(errno.EIO, "gone")
        utime(path, *args)

    monkeypatch.setattr(os, "utime", fail_at_first)
    with own(tmp_path):
        first = read_newest(tmp_path).beat
        deadline = time.monotonic() + 10
        while len(calls) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_newest(tmp_path).beat > first


def test_the_heartbeat_ends_with_the_block_and_keeps_no_process_alive(tmp_path, monkeypatch):
    entered = threading.Event()

    def touch_slowly(path, *args):
        if path == path_of(tmp_path, 1):
            entered.set()
            time.sleep(0.5)

    with own(tmp_path):
        (heart,) = [one for one in threading.enumerate() if one.name == "heartbeat"]
        assert heart.daemon
        monkeypatch.setattr(os, "utime", touch_slowly)
        assert entered.wait(10)
    assert not heart.is_alive()


# The folder


def test_files_of_processes_killed_while_they_waited_are_removed(tmp_path):
    for name, age in (("old", 3600), ("young", 0)):
        (tmp_path / f".owner-{name}").touch()
        os.utime(tmp_path / f".owner-{name}", (time.time() - age,) * 2)
    time_own(tmp_path)
    assert list_names(tmp_path) == [".owner-young", "owner-000001.json"]


@pytest.mark.parametrize("place", ["open", "fsync", "link", "utime"])
@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EPERM])
def test_a_folder_that_cannot_be_written_is_one_clear_message(tmp_path, monkeypatch, place, reason):
    module = builtins if place == "open" else os
    real = getattr(module, place)

    def fail(path, *args):
        if place == "open" and not str(path).startswith(str(tmp_path)):
            return real(path, *args)
        raise OSError(reason, os.strerror(reason))

    leave_record(tmp_path, place="elsewhere", age=3600)
    with monkeypatch.context() as patch:
        patch.setattr(module, place, fail)
        with pytest.raises(Interrupted) as stop, own(tmp_path):
            pass
    assert os.strerror(reason) in str(stop.value)
    assert str(tmp_path) in str(stop.value)
    assert "run it again" in str(stop.value)
    assert list_names(tmp_path) == ["owner-000003.json"]
    assert time_own(tmp_path)[0] == 4


def test_a_folder_of_another_user_is_one_clear_message(tmp_path):
    def try_as_nobody(pipe):
        if os.geteuid() == 0:
            os.setuid(65534)
        live(tmp_path, pipe)

    tmp_path.chmod(0o555)
    mine, theirs = FORK.Pipe()
    child = FORK.Process(target=try_as_nobody, args=(theirs,), daemon=True)
    child.start()
    assert mine.poll(30)
    assert "Permission denied" in mine.recv()
    child.join()
    assert child.exitcode == 75


def test_a_file_in_the_place_of_the_folder_is_one_clear_message(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(Interrupted, match="cannot be owned"), own(tmp_path / "run"):
        pass


def test_a_release_that_fails_is_a_warning_and_hides_no_error(tmp_path, monkeypatch, caplog):
    def fail(path, length):
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(os, "truncate", fail)
    with pytest.raises(ZeroDivisionError), own(tmp_path):
        raise ZeroDivisionError
    assert "not released" in caplog.text


def test_what_an_owner_before_had_begun_to_write_goes(tmp_path):
    begun = [tmp_path / ".checkpoint-0000000005-000001.safetensors.abc", tmp_path / ".metrics.xyz"]
    finished = tmp_path / "checkpoint-0000000004-000001.safetensors"
    waiting = tmp_path / ".owner-0123"
    for path in (*begun, finished, waiting):
        path.write_text("half")
    with own(tmp_path):
        assert not any(path.exists() for path in begun)
        assert finished.exists()
        assert waiting.exists()
