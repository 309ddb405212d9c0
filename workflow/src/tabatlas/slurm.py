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
    "REVOKED",
    "TIMEOUT",
}
# As the profile names jobs: `slurm-jobname-prefix`, and a run of snakemake.
OUR_NAME = re.compile(r"tabatlas_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ANSWER_SECONDS = 60  # a busy controller takes its time
CANCEL_SECONDS = 120  # sites give a job some 30 seconds from SIGTERM to SIGKILL


def ask(*command: str) -> str | None:
    """What a command of Slurm prints; None where it is not there, fails or does not answer."""
    plain = os.environ | {"SLURM_TIME_FORMAT": "%s"}  # seconds since 1970
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=plain, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def end_of_job(job: str) -> float | None:
    """When the job reaches its time limit, in seconds since 1970."""
    told = (ask("squeue", "--noheader", "--jobs", job, "--format=%e") or "").strip()
    return float(told) if told.isdigit() else None


def is_over(job: str) -> bool:
    """Whether Slurm has ended a job of this user. One that it has forgotten is."""
    told = ask("squeue", "--noheader", "--me", "--states=all", "--format=%A %T")
    if told is None:
        return False
    states = dict(line.split() for line in told.splitlines())
    return states.get(job, "COMPLETED") in OVER


def most_memory(partition: str | None) -> int | None:
    """The memory of the largest node of a partition (of the default one) in MB."""
    chosen = ["--partition", partition] if partition else []
    told = ask("sinfo", "--noheader", "--Node", "--format=%m", *chosen)
    return max((int(one) for one in (told or "").split() if one.isdigit()), default=None)


def most_minutes(partition: str | None) -> float | None:
    """The longest that a job may take in a partition (in the default one), in minutes."""
    chosen = ["--partition", partition] if partition else []
    told = ask("sinfo", "--noheader", "--format=%l", *chosen)
    return max(map(read_minutes, (told or "").split()), default=None)


def read_minutes(text: str) -> float:
    """Minutes of a time as Slurm writes it: `infinite`, `30:00`, `2:00:00`, `1-00:00:00`."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts):
        return float("inf")
    hours, minutes, seconds = (*(0,) * (3 - len(parts)), *map(int, parts))
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def find_active(folder: Path) -> set[str] | None:
    """This user's jobs that a snakemake submitted from `folder` and that are not over.

    None where Slurm does not answer.
    """
    told = ask("squeue", "--noheader", "--me", "--format=%A|%j|%Z")
    if told is None:
        return None
    jobs = [line.split("|", 2) for line in told.splitlines()]
    return {job for job, name, place in jobs if OUR_NAME.fullmatch(name) and Path(place) == folder}


def cancel_orphans(folder: Path, jobs: Collection[str]) -> None:
    """Cancel those of `jobs` that a snakemake submitted from `folder` and that are not over.

    Raises `TabatlasError` where some have not ended in time: they may still write.
    """
    left = set(jobs) & (find_active(folder) or set())
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
