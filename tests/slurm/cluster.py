"""A throw-away Slurm cluster, and the project's own profile as a site fills it in."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tiny_atlas import ROOT, Workdir

HERE = Path(__file__).parent


def read_megabytes(text: str) -> int:
    """What Slurm calls 2000M, or 4G."""
    return int(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])


class Job(NamedTuple):
    """A job that Slurm knows or knew."""

    id: int
    comment: str  # names the rule
    state: str
    node: str
    megabytes: int


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

    def jobs(self, rule: str | None = None) -> list[Job]:
        """All jobs (of a rule) since the cluster started, the first one first."""
        told = self.ask("squeue", "--noheader", "--states=all", "--format=%A|%k|%T|%N|%m")
        rows = [line.split("|") for line in told.splitlines()]
        jobs = sorted(Job(int(row[0]), *row[1:4], read_megabytes(row[4])) for row in rows)
        return [job for job in jobs if rule is None or job.comment.startswith(f"rule_{rule}")]

    def read_seconds(self, job: Job) -> int:
        """How long a job ran."""
        told = self.ask("squeue", "--noheader", f"--jobs={job.id}", "--states=all", "--format=%M")
        parts = map(int, reversed(told.strip().split(":")))
        return sum(part * 60**place for place, part in enumerate(parts))

    def limit_next(self, rule: str, minutes: int, after: int = 0) -> int:
        """Set the time limit of the job of a rule that comes after another; its id."""
        found = await_that(lambda: [job for job in self.jobs(rule) if job.id > after], 1200)
        self.ask("scontrol", "update", f"jobid={found[0].id}", f"timelimit={minutes}")
        return found[0].id

    def find_daemon(self, name: str) -> int:
        """The pid of a daemon, which may have ended."""
        rows = [line.split() for line in (self.folder / "pids").read_text().splitlines()]
        return next(int(pid) for pid, _, one in reversed(rows) if one == name)

    def mend(self) -> None:
        """End all jobs, and have all nodes up again."""
        self.ask("scancel", "--user=root")
        for name in self.find_nodes("down"):
            if not os.path.exists(f"/proc/{self.find_daemon(name)}"):
                subprocess.run([HERE / "up", self.folder, name], check=True, timeout=60)
            self.ask("scontrol", "update", f"nodename={name}", "state=resume")
        await_that(lambda: len(self.find_nodes("idle")) == 3)

    def find_nodes(self, state: str) -> set[str]:
        """Nodes in a state."""
        return set(self.ask("sinfo", "--noheader", "--Node", f"--states={state}", "-o%N").split())


def await_that(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What a condition gives, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.2)
    return found


def alarm_waits(pid: int) -> bool:
    """Whether SIGALRM has come to a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGALRM - 1) & 1 for mask in pending)


def sleep_until_the_alarm(pid: int) -> None:
    """Stop a trainer, so that it needs no more of this machine, until its time is nearly over."""
    os.kill(pid, signal.SIGSTOP)
    await_that(lambda: alarm_waits(pid), 600)
    os.kill(pid, signal.SIGCONT)


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
