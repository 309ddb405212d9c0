"""What differs between two runs of the same build: host, time, durations, installed versions."""

import csv
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabatlas import names

PACKAGES = (
    "tabatlas",
    "torch",
    "tiledbsoma",
    "anndata",
    "scanpy",
    "scikit-learn",
    "numpy",
    "pandas",
    "snakemake",
)


def gather_facts(benchmarks: Path) -> dict[str, Any]:
    """Facts of this run; `benchmarks` is the folder of Snakemake's benchmark files."""
    jobs = read_benchmarks(benchmarks)
    return {
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "n_cpus": os.cpu_count(),
        "versions": find_versions(),
        "jobs": jobs,
        "stages": sum_jobs(jobs),
    }


def find_versions() -> dict[str, str]:
    """Installed versions, without importing anything."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def read_benchmarks(folder: Path) -> list[dict[str, Any]]:
    """One row per job, in the order of the stages; a folder that is not there holds none.

    `seconds` and `cpu_seconds` in s, `peak_mib` in MiB (Snakemake's `max_rss`), None where
    Snakemake could not measure. A job measured several times counts as its last time.
    """
    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if rows:
            name = path.relative_to(folder).with_suffix("").as_posix()
            jobs.append(
                {
                    "stage": name.split("/")[0],
                    "job": name,
                    "seconds": read_number(rows[-1].get("s")),
                    "cpu_seconds": read_number(rows[-1].get("cpu_time")),
                    "peak_mib": read_number(rows[-1].get("max_rss")),
                }
            )
    return sorted(jobs, key=lambda job: (place_stage(job["stage"]), job["job"]))


def read_number(text: str | None) -> float | None:
    """A number of a benchmark file; Snakemake writes `-` or `NA` for what it did not measure."""
    return None if text in (None, "", "-", "NA", "nan") else float(text)


def place_stage(stage: str) -> int:
    """Place of a stage on the way of the data; unknown ones come last."""
    return names.STAGES.index(stage) if stage in names.STAGES else len(names.STAGES)


def sum_jobs(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per stage: number of jobs, total and longest time, highest peak of memory."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(job["stage"], []).append(job)
    return [
        {
            "stage": stage,
            "n_jobs": len(group),
            "seconds": sum(job["seconds"] or 0 for job in group),
            "longest_seconds": max(job["seconds"] or 0 for job in group),
            "cpu_seconds": sum(job["cpu_seconds"] or 0 for job in group),
            "peak_mib": max((job["peak_mib"] or 0 for job in group), default=0) or None,
        }
        for stage, group in groups.items()
    ]
