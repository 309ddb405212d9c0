import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tabatlas.errors import Interrupted
from tabatlas.train.signals import STOPPING, Listening, await_end_of_job


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_a_second_does_no_harm(number):
    # Whoever started the tests may ignore some.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with contextlib.suppress(Interrupted), Listening() as listening:
            assert listening.heard is None
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert listening.heard == number
            limit = "the job's time limit, which is near"
            assert listening.describe() == (limit if number == signal.SIGALRM else number.name)
            raise Interrupted
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_after_the_last_step_is_for_who_listened_before():
    told = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
    try:
        with Listening():
            signal.raise_signal(signal.SIGUSR1)
            assert told == []
        assert told == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_nohup_or_a_shell_ignores_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Listening() as listening:
            signal.raise_signal(number)
        assert listening.heard is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(("left", "wait"), [(3600, 3480), (60, 48), (-5, 0.001)])
def test_an_alarm_comes_before_the_end_of_the_job(fake_slurm, monkeypatch, left, wait):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    fake_slurm.answer("squeue", f"echo {int(time.time()) + left}")
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        await_end_of_job()
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= wait
        assert signal.setitimer(signal.ITIMER_REAL, 0)[0] > wait - 10 or wait < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("job", [None, "12"])
def test_without_a_job_or_its_end_no_alarm_comes(fake_slurm, monkeypatch, job):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    fake_slurm.answer("squeue", "echo N/A" if job else f"echo {int(time.time()) + 10}")
    await_end_of_job()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


WATCHED = """
import sys, time
from tabatlas.train.signals import Watchdog
Watchdog.TICK = 0.05
with Watchdog(minutes=0.3 / 60) as watchdog:
    for _ in range(20):
        time.sleep(0.05)
        watchdog.feed()
    print("fed", flush=True)
    time.sleep(float(sys.argv[1]))
print("left", flush=True)
time.sleep(1)
"""


def watch(seconds: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, str(seconds)], capture_output=True, text=True, timeout=60
    )


def test_the_watchdog_ends_a_process_in_which_nothing_moves():
    found = watch(30)
    assert (found.returncode, found.stdout) == (75, "fed\n")
    assert "nothing moved for 0.005 minutes (hang_minutes)" in found.stderr
    assert found.stderr.endswith("Run it again to resume.\n")


def test_the_watchdog_ends_a_process_that_nobody_listens_to():
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sys.executable, "-c", WATCHED, "30"], stderr=writing)
    os.close(writing)
    try:
        assert process.wait(20) == 75
    finally:
        process.kill()


def test_the_watchdog_leaves_alone_who_feeds_it_and_who_is_done():
    found = watch(0)
    assert (found.returncode, found.stdout, found.stderr) == (0, "fed\nleft\n", "")


def test_time_in_which_the_process_is_stopped_does_not_count():
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, "0"], stdout=subprocess.PIPE, text=True
    )
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "fed\nleft\n"
    assert process.returncode == 0
