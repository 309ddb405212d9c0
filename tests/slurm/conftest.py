"""The cluster that the tests here share."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cluster import HERE, Cluster, write_profile

from trainings import Training


def find_obstacle() -> str | None:
    """Why no cluster can be started here."""
    if os.geteuid() != 0:
        return "only root can start a Slurm cluster"
    if not shutil.which("slurmctld") and not shutil.which("apt-get"):
        return "no Slurm here, and no apt-get to install it"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "no snakemake-executor-plugin-slurm: pip install -e '.[slurm]'"
    if os.path.exists("/etc/slurm/slurm.conf"):
        return "this machine has a Slurm already (/etc/slurm/slurm.conf)"
    return None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node without GPUs and two with two each."""
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    started = subprocess.run([HERE / "up", made.folder], timeout=300)
    if started.returncode == 3:
        pytest.skip("apt-get cannot install Slurm here")
    started.check_returncode()
    yield made
    subprocess.run([HERE / "down", made.folder], check=True, timeout=60)


@pytest.fixture
def submit(cluster: Cluster) -> Iterator[Callable[..., tuple[Training, subprocess.Popen[bytes]]]]:
    """Start a training as a job of the cluster, its rule with some resources of its own."""
    started = []

    def start(training, *options, environment=None, **resources):
        profile = write_profile(training.workdir, **{training.stage: resources})
        made = replace(
            training,
            options=(*training.options, *profile, *options),
            environment=cluster.environment | (environment or {}),
        )
        started.append(made)
        return made, made.start()

    yield start
    for training in started:
        training.end()
    cluster.mend()
