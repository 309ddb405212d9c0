"""What Slurm knows about jobs and partitions.

Only what it prints is used, so that nothing here needs more than its commands. Where it is not
there, or does not answer, nothing is known and nobody waits.
"""

import logging
import os
import re
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from tabatlas.errors import TabatlasError

logger = logging.getLogger(__name__)

# States in which Slurm has ended a job, whatever its processes do on a node that is cut off.
OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
# As the profile names jobs: `slurm-jobname-prefix`, and a run of snakemake.
OUR_NAME = re.compile(r"tabatlas_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DEFAULTS = re.compile("(SQUEUE|SINFO|SCANCEL)_")
ANSWER_SECONDS = 60  # a busy controller takes its time
CANCEL_SECONDS = 120  # sites give a job some 30 seconds from SIGTERM to SIGKILL


def ask(*command: str) -> str | None:
    """What a command of Slurm prints; None where it is not there, fails or does not answer."""
    # A user's own defaults, say a partition, would hide jobs. Times are seconds since 1970.
    plain = {key: value for key, value in os.environ.items() if not DEFAULTS.match(key)}
    plain["SLURM_TIME_FORMAT"] = "%s"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=plain,
            timeout=ANSWER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def end_of_job(job: str) -> float | None:
    """When the job reaches its time limit, in seconds since 1970."""
    told = (ask("squeue", "--noheader", "--jobs", job, "--format=%e") or "").strip()
    return float(told) if told.isdigit() else None


def find_states() -> dict[str, str] | None:
    """The state of each job of this user that Slurm remembers; None where it does not answer."""
    told = ask("squeue", "--noheader", "--me", "--states=all", "--format=%A %T")
    return None if told is None else dict(line.split() for line in told.splitlines())


def is_over(job: str) -> bool:
    """Whether Slurm has ended a job of this user. One that it has forgotten is."""
    states = find_states()
    return states is not None and states.get(job, "COMPLETED") in OVER


def find_active(folder: Path) -> set[str] | None:
    """This user's jobs that a snakemake submitted from `folder` and that are not over.

    None where Slurm does not answer.
    """
    told = ask("squeue", "--noheader", "--me", "--format=%A|%j|%Z")
    if told is None:
        return None
    jobs = [line.split("|", 2) for line in told.splitlines()]
    here = folder.resolve()
    return {
        job
        for job, name, place in jobs
        if OUR_NAME.fullmatch(name) and Path(place).resolve() == here
    }


def cancel_orphans(folder: Path, jobs: Collection[str]) -> None:
    """Cancel those of `jobs` that a snakemake submitted from `folder` and that are not over.

    Raises `TabatlasError` where some have not ended in time, or Slurm does not tell: they may still
    write.
    """
    active = find_active(folder)
    if jobs and active is None:
        raise TabatlasError(
            "squeue does not answer, and jobs of a snakemake that is gone may still run. Start "
            "again when it does. Nothing was submitted."
        )
    left = set(jobs) & (active or set())
    if not left:
        return
    logger.warning(
        "Slurm jobs %s are those of a snakemake that is gone: cancelled", ", ".join(sorted(left))
    )
    ask("scancel", *left)
    latest = time.monotonic() + CANCEL_SECONDS
    while left and time.monotonic() < latest:
        time.sleep(1)
        active = find_active(folder)
        left &= left if active is None else active
    if left:
        raise TabatlasError(
            f"Slurm jobs {', '.join(sorted(left))}, of a snakemake that is gone, were cancelled "
            f"and have not ended within {CANCEL_SECONDS} s. Start again when squeue does not show "
            "them any more. Nothing was submitted."
        )
