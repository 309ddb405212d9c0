"""A cluster that only its commands pretend: each prints what a real one once printed."""

import shlex
import shutil
from dataclasses import dataclass

import pytest
import yaml

from fake_slurm import FakeSlurm
from tabatlas.doctor import installation

NODES = """\
cpu*|up|1-00:00:00|16000|(null)|idle|cpu1|10.0.0.1
cpu*|up|1-00:00:00|16000|(null)|down*|cpu2|10.0.0.2
gpu|up|12:00:00|64000|gpu:a100:2(S:0,1),gres/lustre:1|mixed|gpu1|10.0.0.3
gpu|up|12:00:00|128000|gpu:h100:4(S:0-1)|idle|gpu2|10.0.0.4
long|down|infinite|16000|(null)|idle|cpu1|10.0.0.1
broken|up|infinite|16000|(null)|drained|cpu3|10.0.0.5
"""
PROFILE = {
    "executor": "slurm",
    "jobs": 10,
    "slurm-status-command": "squeue",
    "default-resources": {"slurm_partition": "cpu"},
    "set-resources": {
        "pretrain": {"slurm_partition": "gpu", "gpu": 2, "gpu_model": "h100", "runtime": "12h"},
        "finetune": {"slurm_partition": "gpu", "gres": "gpu:1"},
        "replicate": {"slurm_partition": "gpu"},
        "integrate": {"slurm_partition": "gpu", "gpu": 0},
        "explain": {"slurm_partition": "gpu", "gpu_model": "a100"},
        "perturb": {"slurm_partition": "gpu"},
    },
}


@dataclass
class Cluster:
    """Commands in a folder at the head of PATH, and a profile."""

    commands: FakeSlurm
    profile: dict

    def answer(self, command: str, text: str) -> None:
        """Let a command print a text."""
        self.commands.answer(command, f"printf %s {shlex.quote(text)}")

    def refuse(self, option: str, why: str) -> None:
        """Let `sbatch` refuse jobs with an option; it takes none in earnest."""
        refusal = f"echo {shlex.quote(why)} >&2; exit 1"
        script = f'case "$*" in *{option}*) {refusal};; --test-only*) ;; *) exit 1;; esac'
        self.commands.answer("sbatch", script)

    def set_resources(self, rule: str, **values: object) -> None:
        """Add a rule's wishes to the profile."""
        wishes = self.profile["set-resources"].get(rule, {})
        self.profile["set-resources"] = self.profile["set-resources"] | {rule: wishes | values}

    def write(self) -> str:
        """The profile's folder."""
        folder = self.commands.folder / "profile"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.profile))
        return str(folder)


@pytest.fixture
def path_without_slurm(tmp_path, monkeypatch):
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "which").symlink_to(shutil.which("which"))  # the executor plugin wants it
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    monkeypatch.setattr(installation, "look_at_torch", lambda: ("2.13.0+cu130", "13.0", []))
    return folder


@pytest.fixture
def cluster(path_without_slurm):
    """A cluster on which all is well."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `slurm` is missing")
    found = Cluster(FakeSlurm(path_without_slurm), dict(PROFILE))
    found.answer("sinfo", NODES)
    found.answer("squeue", "")
    found.answer("scontrol", "KillWait = 30 sec\nMinJobAge               = 300 sec\n")
    found.answer("sacctmgr", "lab\nlab\nother\n")
    found.refuse("--none", "")
    return found
