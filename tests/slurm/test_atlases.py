"""Atlases through the project's own profile: the bundles are those of a local run."""

import json
import shutil
from pathlib import Path

import pytest
from cluster import await_that, sleep_until_the_alarm

from built_demo import DEMO, NEEDS_DEMO
from tiny_atlas import Workdir
from trainings import Training

pytestmark = pytest.mark.slurm

# What a run of the atlas has besides the cells of its datasets.
LATER = ("ingest", "split", "pack", "pretrain", "checkpoints", "finetune", "integrate")
LATER += ("perturb", "explain", "bundle", "report")
# In one job: each costs some ten seconds besides its work.
GROUPED = [f"{rule}=data" for rule in ("register", "append", "seal", "split", "pack")]


def read_bundle(results: Path) -> dict[str, bytes]:
    """The files of the bundle, by their path with its version."""
    folder = results / "bundle"
    current = folder / json.loads((folder / "bundle.json").read_text())["path"]
    files = [path for path in current.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_training_that_meets_its_time_limit_ends_in_the_bundle_of_a_local_run(
    cluster, submit, built, tmp_path
):
    tiny = Workdir(tmp_path / "work")
    shutil.copytree(built.path, tiny.path)
    for stage in LATER:
        shutil.rmtree(tiny.path / "results/tiny" / stage)
    run = Training(tiny, tmp_path / "log", tiny.configure(), stage="integrate")
    run, running = submit(run, "--groups", *GROUPED)
    await_that(lambda: cluster.jobs("integrate") or running.poll() is not None, 1200)
    assert running.poll() is None, run.read_log()
    # It has to train when its time is nearly over, however much else runs on this machine.
    slow = cluster.read_seconds(cluster.jobs("pretrain")[0])
    cut = cluster.limit_next("integrate", minutes=1 + 3 * slow // 60)
    sleep_until_the_alarm(run.await_trainer(1))
    cluster.limit_next("integrate", minutes=60, after=cut)
    assert running.wait() == 0, run.read_log()
    logs = (tiny.path / "logs/slurm/rule_integrate").iterdir()
    first, second = sorted(logs, key=lambda path: int(path.stem))
    assert "stopped by the job's time limit, which is near" in first.read_text()
    assert "resuming at epoch" in second.read_text()
    assert [job.state for job in cluster.jobs("integrate")] == ["FAILED", "COMPLETED"]
    assert read_bundle(tiny.path / "results/tiny") == read_bundle(built.path / "results/tiny")


@NEEDS_DEMO
@pytest.mark.slow
def test_the_demo_from_the_cluster_is_the_one_from_this_machine(cluster, submit, tmp_path):
    before = len(cluster.jobs())
    run, running = submit(Training(Workdir(tmp_path), tmp_path / "log", ()))
    assert running.wait() == 0, run.read_log()
    assert {job.state for job in cluster.jobs()[before:]} == {"COMPLETED"}
    assert {job.node for job in cluster.jobs()[before:]} == {"cpu1", "gpu1", "gpu2"}
    assert read_bundle(tmp_path / "results/demo") == read_bundle(DEMO)
