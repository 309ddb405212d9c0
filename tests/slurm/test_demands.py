"""What jobs ask for: memory that is not enough, and what the cluster has not."""

import os
import shutil
import sys

import pytest

from tiny_atlas import Workdir
from trainings import SHORT, Training, copy_packed

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Nothing limits the memory of jobs here, so this does, by what its job has asked for. The command
# itself is given 2,000 MB to hold, which is all that `split` asks for.
GREEDY = f"""#!{sys.executable}
import functools, os, re, resource, subprocess
from tabatlas import cli
from tabatlas.split import stage

show = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
told = subprocess.run(show, check=True, capture_output=True, text=True).stdout
number, unit = re.search(r"MinMemoryNode=([0-9.]+)([MG])", told).groups()
limit = int(float(number) * {{"M": 1 << 20, "G": 1 << 30}}[unit])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

@functools.wraps(stage.run)
def hold_and_run(*paths, run=stage.run, **named):
    held = bytearray(2000 << 20)
    run(*paths, **named)

stage.run = hold_and_run
cli.main()
"""


def test_a_job_that_exceeds_its_memory_gets_twice_as_much(cluster, submit, built, tmp_path):
    before = len(cluster.jobs("split"))
    workdir = Workdir(tmp_path / "work")
    shutil.copytree(built.path, workdir.path)
    proof = "results/tiny/split/split.json"
    wanted = (workdir.path / proof).read_bytes()
    (workdir.path / proof).unlink()
    command = tmp_path / "bin" / "tabatlas"
    command.parent.mkdir()
    command.write_text(GREEDY)
    command.chmod(0o755)
    split = Training(workdir, tmp_path / "log", (proof, *workdir.configure()), stage="split")
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    run, running = submit(split, environment={"PATH": path})
    assert running.wait() == 0, run.read_log()
    first, second = cluster.jobs("split")[before:]
    assert (first.state, second.state) == ("FAILED", "COMPLETED")
    assert 2000 <= first.megabytes < 2100
    assert second.megabytes == 2 * first.megabytes
    assert "out of memory" in run.read_log()
    assert (workdir.path / proof).read_bytes() == wanted


@pytest.mark.parametrize("wrong", [{"slurm_partition": "nowhere"}, {"gpu_model": "h100"}], ids=str)
def test_what_the_cluster_has_not_is_said_before_anything_is_submitted(
    cluster, submit, built, tmp_path, wrong
):
    before = cluster.jobs()
    run, running = submit(copy_packed(built, tmp_path, SHORT), **wrong)
    assert running.wait() != 0
    assert cluster.jobs() == before
    (value,) = wrong.values()
    assert value in run.read_log()
    assert "Traceback" not in run.read_log()
