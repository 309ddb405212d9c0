"""What the doctor says about what is installed."""

import importlib.metadata
import subprocess
import sys

import pytest

from tabatlas.config import load_config
from tabatlas.doctor import installation
from tabatlas.doctor.findings import Site
from tabatlas.doctor.profile import Profile

CARD = "NVIDIA H100, 81559 MiB, 580.65"
DATASETS = [{"dataset_id": "one", "path": "one.h5ad"}]


def configure(device):
    values = {"atlas": "tiny", "datasets": DATASETS, "pretrain": {"device": device}}
    return load_config(values)[0]


def ask_for_gpu():
    wishes = {"pretrain": {"gpu": 1, "slurm_partition": "gpu"}}
    return Profile("slurm", "slurm", {}, {}, wishes)


def examine(monkeypatch, torch, cards, site):
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    monkeypatch.setattr(installation, "look_at_torch", lambda: torch)
    monkeypatch.setattr(installation, "list_cards", lambda: cards)
    return [*installation.check_torch(site), *installation.check_gpu(site)]


CPU, CUDA, SEEN = ("2.13.0+cpu", None, []), ("2.13.0", "13.0", []), ("2.13.0", "13.0", ["H100"])


@pytest.mark.parametrize(
    ("torch", "cards", "device", "states"),
    [
        (CPU, [], "auto", ["ok", "not checked"]),
        (CPU, [], "cuda", ["failed", "failed"]),
        (CPU, [CARD], "auto", ["failed", "failed"]),
        (CUDA, [], "auto", ["ok", "not checked"]),
        (CUDA, [], "cuda", ["ok", "failed"]),
        (CUDA, [CARD], "auto", ["ok", "failed"]),
        (SEEN, [CARD], "cuda", ["ok", "ok"]),
        ("libcudart.so.13: cannot open shared object file", [], "auto", ["failed", "not checked"]),
    ],
)
def test_torch_must_fit_what_is_here_and_what_is_asked(monkeypatch, torch, cards, device, states):
    found = examine(monkeypatch, torch, cards, Site(config=configure(device)))
    assert [finding.state for finding in found] == states


def test_a_login_node_needs_no_gpu(monkeypatch):
    site = Site("slurm", ask_for_gpu(), configure("cuda"))
    assert [one.state for one in examine(monkeypatch, CUDA, [], site)] == ["ok", "not checked"]


def test_gpu_jobs_with_a_build_for_cpus_are_named(monkeypatch):
    first, _ = examine(monkeypatch, CPU, [], Site("slurm", ask_for_gpu(), configure("auto")))
    assert first.state == "not checked"
    assert "will train on CPUs" in first.text


def test_in_a_job_that_has_a_gpu_torch_must_see_it(monkeypatch):
    examine(monkeypatch, CUDA, [], Site())
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert next(installation.check_gpu(Site())).state == "failed"


def test_torch_is_looked_at_as_it_is():
    version, cuda, seen = installation.look_at_torch()
    assert version == importlib.metadata.version("torch")
    assert seen == [] or cuda


def test_packages_of_other_versions_and_missing_ones_are_named(monkeypatch):
    versions = {"torch": "1.0", "scanpy": None}
    real = installation.find_version
    monkeypatch.setattr(installation, "find_version", lambda name: versions.get(name, real(name)))
    (finding,) = installation.check_packages(Site())
    assert finding.state == "failed"
    assert "torch 1.0 (2.13.0)" in finding.text
    assert "scanpy missing (1.11.5)" in finding.text
    assert "pip install -c envs/constraints.txt" in finding.text


def test_packages_behind_those_only_cost_the_last_digits(monkeypatch):
    real = installation.find_version
    monkeypatch.setattr(
        installation, "find_version", lambda name: "1.0" if name == "scipy" else real(name)
    )
    *_, last = installation.check_packages(Site())
    assert (last.state, "scipy 1.0 (1.17.1)" in last.text) == ("not checked", True)


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from tabatlas.doctor import installation
installation.look_at_torch = lambda: "No module named 'torch'"
from tabatlas.cli import main
main(["doctor", "--profile", "slurm", "--configfile", "mine.yaml"])
"""


def test_it_needs_nothing_but_python(tmp_path):
    blocked = ("torch", "pydantic", "yaml", "snakemake", "packaging", "numpy", "tiledbsoma")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("failed")] == [
        "packages", "torch", "executor"
    ]  # fmt: skip
