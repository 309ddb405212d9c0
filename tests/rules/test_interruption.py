"""Trainings that are stopped or killed under snakemake, and snakemake killed above them."""

import os
import re
import signal

import psutil
import pytest

from trainings import LOCAL, LONG, SHORT, copy_packed


@pytest.fixture
def training(request, built, tmp_path):
    """A training to disturb; none of its processes outlives the test."""
    made = copy_packed(built, tmp_path, request.param)
    yield made
    made.end()


@pytest.mark.parametrize("training", [SHORT], indirect=True)
def test_a_retry_resumes_what_a_signal_stopped_and_what_was_killed(training, undisturbed):
    running = training.start(*LOCAL, "--retries", "2")
    first = training.await_trainer(20)
    for process in psutil.Process(running.pid).children(recursive=True):
        process.terminate()  # the shell and `tee` as well
    second = training.await_trainer(80, other_than=first)
    os.kill(second, signal.SIGKILL)
    assert running.wait() == 0, training.read_log()
    log = training.read_log()
    (stopped,) = set(re.findall(r"stopped by SIGTERM at step (\d+); run it again", log))
    resumed = [int(step) for step in re.findall(r"resuming at epoch \d+, step (\d+)", log)]
    assert min(resumed) == int(stopped)
    assert max(resumed) >= 80
    assert "Traceback" not in log
    assert training.read_model() == undisturbed(SHORT)
    training.check_metrics()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("training", [SHORT], indirect=True)
def test_a_signal_to_snakemake_and_its_jobs_loses_nothing(training, undisturbed, name):
    running = training.start(*LOCAL, "--retries", "2")
    training.await_trainer(20)
    # As Slurm does where it knows no cgroups, and Ctrl-C.
    os.killpg(running.pid, signal.Signals[name])
    assert running.wait() == 1
    (stopped,) = set(re.findall(rf"stopped by {name} at step (\d+)", training.read_log()))
    assert max(training.steps().values()) == int(stopped)
    kept = (training.workdir.path / "logs/tiny/pretrain.log").read_text()
    assert f"stopped by {name} at step {stopped}; run it again." in kept
    assert training.start(*LOCAL).wait() == 0
    assert f"step {stopped}" in training.read_log().split("resuming at epoch")[1]
    assert training.read_model() == undisturbed(SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("training", [LONG], indirect=True)
def test_a_killed_snakemake_leaves_one_trainer_and_the_next_waits_for_it(training, undisturbed):
    running = training.start(*LOCAL)
    trainer = training.await_trainer(20)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    training.workdir.snakemake("--unlock", "--cores", "1", *training.options)
    refused = training.start(*LOCAL, "--rerun-incomplete")
    assert refused.wait() == 1
    assert psutil.pid_exists(trainer)
    assert f"another process owns this run and is alive (host {os.uname().nodename}, pid" in (
        training.read_log()
    )
    assert training.steps().keys() == {1}
    assert training.start(*LOCAL, "--rerun-incomplete", "--retries", "20").wait() == 0
    assert not psutil.pid_exists(trainer)
    assert training.read_log().count("epoch 250/250") == 1  # the old one's
    assert training.read_model() == undisturbed(LONG)
    training.check_metrics()
