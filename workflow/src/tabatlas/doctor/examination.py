"""All checks in their order, and what a Snakemake does with them before it submits jobs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tabatlas.doctor import cluster, disks, installation
from tabatlas.doctor.findings import Finding, Site
from tabatlas.doctor.profile import Profile, read_profile
from tabatlas.errors import TabatlasError, UsageError

if TYPE_CHECKING:
    from tabatlas.config import Config

Check = Callable[[Site], Iterator[Finding]]


class Line(NamedTuple):
    """A finding of a check, as it is printed."""

    title: str
    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<11}  {self.title:<10}  {self.text}"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("packages", installation.check_packages),
    ("torch", installation.check_torch),
    ("gpu", installation.check_gpu),
    ("executor", installation.check_plugin),
    ("scratch", disks.check_scratch),
    ("results", disks.check_results),
    ("experiment", disks.check_experiment),
    ("sharing", installation.check_sharing),
    ("queue", cluster.check_queue),
    ("job age", cluster.check_job_age),
    ("preemption", cluster.check_preemption),
    ("rules", cluster.check_rules),
    ("partition", cluster.check_partitions),
    ("node gpus", cluster.check_gpus),
    ("limits", cluster.check_limits),
    ("account", cluster.check_account),
    ("ranks", cluster.check_ranks),
    ("trial", cluster.check_trial),
)


def admit(config: "Config", arguments: Sequence[str]) -> None:
    """Examine the Slurm to which a Snakemake with these arguments is about to submit jobs.

    What is not `ok` goes to stderr. Raises `TabatlasError` where a check failed. Of another
    executor nothing is asked.
    """
    profile = read_profile(arguments)
    site = Site(profile.name, profile, config)
    if not site.uses_slurm:
        return
    lines = list(examine(site))
    for line in lines:
        if line.state != "ok":
            sys.stderr.write(f"{line}\n")
    try:
        judge(lines)
    except TabatlasError as error:
        raise TabatlasError(f"{error} Nothing was submitted.") from None


def examine(site: Site) -> Iterator[Line]:
    """The lines of all checks, as soon as each is known."""
    for title, check in CHECKS:
        for finding in check(site):
            yield Line(title, *finding)


def judge(lines: Sequence[Line]) -> None:
    """Raise `TabatlasError` where a check failed."""
    failed = sum(line.state == "failed" for line in lines)
    if failed:
        raise TabatlasError(f"{failed} of {len(lines)} checks failed; each says what to do.")


def find_profile(name: str | None) -> Profile | None:
    """The profile of that name; None where Snakemake or its executor is not there to read it.

    Raises `UsageError` where there is no such profile.
    """
    if name is None:
        return None
    try:
        return read_profile(["--profile", name])
    except ImportError:
        return None
    except UsageError:
        if installation.has_plugin():
            raise
        return None


def read_config(path: Path | None) -> "Config | None":
    """A configuration from its file; None where what reads it is not installed.

    Raises `ConfigError` where it is wrong.
    """
    if path is None:
        return None
    try:
        import yaml

        from tabatlas.config import check_keys, load_config
    except ImportError:  # the line of the packages names it
        return None
    check_keys(path)
    return load_config(yaml.safe_load(path.read_text(encoding="utf-8")))[0]
