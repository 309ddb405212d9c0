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


def find_orphans(folder: Path) -> list[str]:
    """This user's jobs that a snakemake working in `folder` submitted, in the queue or running."""
    told = ask("squeue", "--noheader", "--me", "--format=%A|%j|%Z") or ""
    jobs = [line.split("|", 2) for line in told.splitlines()]
    return [job for job, name, place in jobs if OUR_NAME.fullmatch(name) and Path(place) == folder]


def cancel(jobs: Collection[str]) -> list[str]:
    """Cancel jobs and wait until Slurm has ended them; returns those that it has not."""
    ask("scancel", *jobs)
    latest = time.monotonic() + CANCEL_SECONDS
    while (left := [job for job in jobs if not is_over(job)]) and time.monotonic() < latest:
        time.sleep(2)
    return left


def cancel_orphans(folder: Path) -> None:
    """Cancel the jobs of a snakemake that died while it worked in `folder`.

    They would write what this run's jobs write. Where another snakemake has a lock in the folder
    beside the caller's, they may be its own, and are left alone.
    """
    jobs = find_orphans(folder)
    if not jobs:
        return
    named = f"Slurm jobs {', '.join(jobs)}, submitted from {folder}"
    if len(list(folder.glob(".snakemake/locks/*.output.lock"))) > 1:
        logger.warning("%s: left alone, another snakemake works there or left its lock", named)
        return
    logger.warning("%s: cancelled, their snakemake is gone; trainings will resume", named)
    if left := cancel(jobs):
        logger.warning("jobs %s have not ended within %d s", ", ".join(left), CANCEL_SECONDS)
