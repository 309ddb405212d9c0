"""Trainings that are stopped or killed under snakemake, and snakemake killed above them."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_atlas import ROOT, Workdir

SHORT = {"epochs": 40, "patience": 40, "batch_size": 32, "checkpoint_minutes": 0.002}
LONG = SHORT | {"epochs": 250, "patience": 250}
MODEL = Path("results/tiny/pretrain")
SAME = ("model.safetensors", "metrics.jsonl", "config.json", "scores.json")


@dataclass(frozen=True)
class Training:
    """A copy of the tiny atlas in which `pretrain` is to run under snakemake."""

    workdir: Workdir
    log: Path
    options: tuple[str, ...]
    started: list[subprocess.Popen[bytes]]

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start snakemake in a group of processes of its own."""
        call = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        call += [str(MODEL / "model.safetensors"), "--cores", "1", *options, *self.options]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "src")}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                call,
                cwd=self.workdir.path,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def find_runs(self, pattern: str) -> list[Path]:
        """Files in the folders of runs."""
        folder = self.workdir.path / "results/tiny/checkpoints/pretrain"
        return sorted(folder.glob(f"*/{pattern}"))

    def steps(self) -> dict[int, int]:
        """The last step that has a checkpoint, by the token of the owner who wrote it."""
        names = [path.stem.split("-")[1:] for path in self.find_runs("checkpoint-*.safetensors")]
        return {int(token): int(step) for step, token in sorted(names)}

    def await_trainer(self, step: int, other_than: int = 0) -> int:
        """The pid of the trainer, once there is one that has gone on beyond a step."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for path in self.find_runs("owner-*.json"):
                with contextlib.suppress(ValueError, FileNotFoundError):  # released, swept away
                    pid, token = json.loads(path.read_text())["pid"], int(path.stem[6:])
                    if pid != other_than and self.steps().get(token, 0) >= step:
                        return pid
            time.sleep(0.02)
        raise AssertionError(self.read_log())

    def read_log(self) -> str:
        """All that the snakemakes and their jobs printed."""
        return self.log.read_text()

    def read_model(self) -> list[bytes]:
        """The bytes of the model and of its metrics."""
        return [(self.workdir.path / MODEL / name).read_bytes() for name in SAME]


def copy_packed(built: Workdir, path: Path, knobs: dict[str, object]) -> Training:
    """A copy of the tiny atlas, with other knobs and without its models."""
    workdir = Workdir(path / "work")
    shutil.copytree(built.path, workdir.path)
    shutil.rmtree(workdir.path / MODEL)
    shutil.rmtree(workdir.path / "results/tiny/checkpoints")
    options = workdir.configure(pretrain=knobs)
    return Training(workdir, path / "log", options, [])


@pytest.fixture
def training(request, built, tmp_path):
    """A training to disturb; none of its processes outlives the test."""
    made = copy_packed(built, tmp_path, request.param)
    yield made
    for process in made.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def undisturbed(built, tmp_path_factory):
    """The model of an undisturbed run with these knobs."""
    done: dict[int, list[bytes]] = {}

    def run(knobs):
        if knobs["epochs"] not in done:
            made = copy_packed(built, tmp_path_factory.mktemp("undisturbed"), knobs)
            assert made.start().wait() == 0, made.read_log()
            done[knobs["epochs"]] = made.read_model()
        return done[knobs["epochs"]]

    return run


def check_metrics(training: Training) -> None:
    """No step twice, none missing."""
    rows = map(json.loads, (training.workdir.path / MODEL / "metrics.jsonl").open())
    steps = [row["step"] for row in rows if "cells" in row]
    assert steps == list(range(len(steps)))


@pytest.mark.parametrize("training", [SHORT], indirect=True)
def test_a_retry_resumes_what_a_signal_stopped_and_what_was_killed(training, undisturbed):
    running = training.start("--retries", "2")
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
    check_metrics(training)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("training", [SHORT], indirect=True)
def test_a_signal_to_snakemake_and_its_jobs_loses_nothing(training, undisturbed, name):
    running = training.start("--retries", "2")
    training.await_trainer(20)
    # As Slurm does where it knows no cgroups, and Ctrl-C.
    os.killpg(running.pid, signal.Signals[name])
    assert running.wait() == 1
    (stopped,) = set(re.findall(rf"stopped by {name} at step (\d+)", training.read_log()))
    assert max(training.steps().values()) == int(stopped)
    kept = (training.workdir.path / "logs/tiny/pretrain.log").read_text()
    assert f"stopped by {name} at step {stopped}; run it again." in kept
    assert training.start().wait() == 0
    assert f"step {stopped}" in training.read_log().split("resuming at epoch")[1]
    assert training.read_model() == undisturbed(SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("training", [LONG], indirect=True)
def test_a_killed_snakemake_leaves_one_trainer_and_the_next_waits_for_it(training, undisturbed):
    running = training.start()
    trainer = training.await_trainer(20)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    training.workdir.snakemake("--unlock", "--cores", "1", *training.options)
    refused = training.start("--rerun-incomplete")
    assert refused.wait() == 1
    assert psutil.pid_exists(trainer)
    assert f"another process owns this run and is alive (host {os.uname().nodename}, pid" in (
        training.read_log()
    )
    assert training.steps().keys() == {1}
    assert training.start("--rerun-incomplete", "--retries", "20").wait() == 0
    assert not psutil.pid_exists(trainer)
    assert training.read_log().count("epoch 250/250") == 1  # the old one's
    assert training.read_model() == undisturbed(LONG)
    check_metrics(training)
