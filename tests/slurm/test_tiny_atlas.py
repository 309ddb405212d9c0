"""The tiny atlas through the project's own profile."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from cluster import await_that, write_profile

from tiny_atlas import Workdir
from trainings import Training

pytestmark = pytest.mark.slurm


def alarm_waits(pid: int) -> bool:
    """Whether SIGALRM has come to a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = re.findall(r"^S[hi][dg]Pnd:\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGALRM - 1) & 1 for mask in pending)


def sleep_until_the_alarm(pid: int) -> None:
    """Stop a trainer, so that it needs no more of this machine, until its time is nearly over."""
    os.kill(pid, signal.SIGSTOP)
    await_that(lambda: alarm_waits(pid))
    os.kill(pid, signal.SIGCONT)


def read_bundle(workdir: Workdir) -> dict[str, bytes]:
    """The files of the bundle, by their path with its version."""
    folder = workdir.path / "results" / "tiny" / "bundle"
    current = folder / json.loads((folder / "bundle.json").read_text())["path"]
    files = [path for path in current.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_training_that_meets_its_time_limit_ends_in_the_bundle_of_a_local_run(
    cluster, built, tmp_path
):
    workdir = Workdir(tmp_path)
    profile = write_profile(workdir, integrate={"runtime": 1})
    run = Training(
        workdir,
        tmp_path / "log",
        (*workdir.configure(), *profile),
        stage="integrate",
        environment=cluster.environment,
    )
    try:
        running = run.start()
        sleep_until_the_alarm(run.await_trainer(1))
        assert running.wait() == 0, run.read_log()
    finally:
        run.end()
    told = [path.read_text() for path in sorted((tmp_path / "logs/slurm/rule_integrate").iterdir())]
    assert "stopped by the job's time limit, which is near" in told[0]
    assert "resuming at epoch" in told[1]
    assert [job.state for job in cluster.jobs("integrate")] == ["FAILED", "COMPLETED"]
    assert read_bundle(workdir) == read_bundle(built)
