"""A throw-away Slurm cluster, and the project's own profile as a site fills it in."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tiny_atlas import ROOT, Workdir

HERE = Path(__file__).parent


class Job(NamedTuple):
    """A job that Slurm knows or knew."""

    id: int
    rule: str
    state: str
    node: str


@dataclass(frozen=True)
class Cluster:
    """A cluster that `up` started."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its users have in their environment; the second is for `down`."""
        config = self.folder / "slurm.conf"
        return {"SLURM_CONF": str(config), "TABATLAS_CLUSTER": str(self.folder)}

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self, rule: str) -> list[Job]:
        """All jobs of a rule since the cluster started, the first one first."""
        told = self.ask("squeue", "--noheader", "--states=all", "--format=%A|%k|%T|%N")
        rows = [line.split("|") for line in told.splitlines()]
        found = [Job(int(row[0]), *row[1:]) for row in rows if row[1] == f"rule_{rule}"]
        return sorted(found)


def write_profile(workdir: Workdir, **resources: Mapping[str, Any]) -> tuple[str, str]:
    """The project's profile with the lines that this site changes, and resources of some rules."""
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    profile["slurm-init-seconds-before-status-checks"] = 2
    for rule, asked in profile["set-resources"].items():
        asked = asked | {"gpu_model": "fake"} | resources.get(rule, {})
        profile["set-resources"][rule] = asked
    folder = workdir.path / "slurm"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return "--profile", str(folder)


def await_that(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What a condition gives, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.2)
    return found
