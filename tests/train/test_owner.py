import builtins
import errno
import json
import os
import signal
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from owners import FORK, leave_record, list_names, live, time_own

from tabatlas import provenance
from tabatlas.errors import Interrupted
from tabatlas.train import owner as owner_module
from tabatlas.train.owner import Seen, describe_process, own, path_of, read_owner, read_stat

pytestmark = pytest.mark.usefixtures("pace")


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


def test_a_second_process_is_refused_and_told_by_whom(tmp_path, start, monkeypatch, fake_slurm):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    fake_slurm.answer("squeue", "echo 77 RUNNING")
    folder = tmp_path / "run"
    child = start(folder)
    assert child.hear() == 1
    before = list_names(folder)
    with pytest.raises(Interrupted) as stop, own(folder):
        pass
    assert stop.value.exit_code == 75
    for part in (str(folder), os.uname().nodename, f"pid {child.pid}", "Slurm job 77", "again"):
        assert part in str(stop.value)
    child.ask("write")
    assert child.hear() == "written"
    assert list_names(folder) == sorted([*before, "weights-1"])


def test_a_waiting_process_starts_when_the_owner_is_released(tmp_path, start, pace):
    pace(beat=2)
    child = start(tmp_path)
    child.hear()
    threading.Timer(0.3, child.ask, ["end"]).start()
    assert time_own(tmp_path)[0] == 2


def test_two_threads_of_one_process_do_not_both_own(tmp_path):
    with own(tmp_path), pytest.raises(Interrupted), own(tmp_path):
        pass


# Owners whose job is over


def test_an_owner_that_lives_on_after_its_job_is_followed_at_once(
    tmp_path, start, monkeypatch, fake_slurm
):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    fake_slurm.answer("squeue", "echo 77 NODE_FAIL; echo 78 RUNNING")
    child = start(tmp_path / "run")
    child.hear()
    assert time_own(tmp_path / "run")[0] == 2
    child.ask("write")
    assert "another owner" in child.hear()


@pytest.mark.parametrize(
    ("job", "cluster", "user", "given_up"),
    [
        ("77", "here", 0, True),
        ("78", "here", 0, False),
        (None, None, 0, False),
        ("77", "elsewhere", 0, False),
        ("77", "here", 1, False),
    ],
)
def test_only_our_own_jobs_are_known_to_be_over(
    fake_slurm, monkeypatch, job, cluster, user, given_up
):
    fake_slurm.answer("squeue", "echo 78 RUNNING")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    process = replace(describe_process(), job=job, cluster=cluster)
    seen = Seen(1, json.dumps(asdict(process)).encode(), 0, os.getuid() + user)
    assert seen.is_given_up() == given_up


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


@pytest.mark.parametrize("pid", [1 << 70, "7", None, [1]])
def test_a_pid_that_is_none_ends_with_the_lease(tmp_path, pace, pid):
    pace(lease=0.6)
    leave_record(tmp_path, pid=pid)
    token, seconds = time_own(tmp_path)
    assert token == 4
    assert seconds > 0.5


def test_a_process_that_another_user_hides_is_not_taken_for_dead(monkeypatch):
    def refuse_signal(pid, number):
        raise PermissionError

    process = describe_process()
    monkeypatch.setattr(os, "kill", refuse_signal)
    assert not process.has_ended()


def test_a_killed_process_is_dead_only_when_its_last_thread_is(monkeypatch):
    process, fields = describe_process(), read_stat(os.getpid())
    for n_threads, ended in ((2, False), (1, True), (0, True)):
        fields[0], fields[17] = "Z", str(n_threads)
        monkeypatch.setattr(owner_module, "read_stat", lambda pid: fields)
        assert process.has_ended() is ended


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
        first = read_owner(tmp_path).beat
        deadline = time.monotonic() + 10
        while len(calls) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_owner(tmp_path).beat > first


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


def test_a_loss_of_power_does_not_take_back_a_new_folder(tmp_path, monkeypatch):
    synced, sync_folder = [], provenance.sync_folder

    def note(folder):
        synced.append(folder)
        sync_folder(folder)

    monkeypatch.setattr(provenance, "sync_folder", note)
    time_own(tmp_path / "new" / "run")
    assert synced == [tmp_path, tmp_path / "new"]


def test_a_hidden_folder_or_a_file_that_stays_does_not_end_the_run(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refuse(path, **options):
        if path.name.startswith(".nfs"):  # as NFS does while somebody has it open
            raise OSError(errno.EBUSY, "busy", str(path))
        unlink(path, **options)

    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".nfs0123").touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    assert time_own(tmp_path)[0] == 1


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
