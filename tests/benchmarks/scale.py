"""From fetch to bundle at scale: peak memory and CPU seconds of every rule, and disk.

    python tests/benchmarks/scale.py --cells 1000000 FOLDER

Prints one line of JSON. The folder is kept: a run that was stopped goes on where it ended. Short
training of a small network on highly variable genes: the size of the data is what is tested.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from scale_data import N_GENES, write_atlas
from workflow import ROOT, find_commands, print_line

ATLAS = "scale"
INTERVAL = 0.5  # seconds between two looks at the processes; their peaks are the kernel's
LOG = re.compile(rf"logged '?logs/{ATLAS}/(\S+)\.log")
TRAINING = {"epochs": 1, "batch_size": 2048, "validation_cells": 5000, "device": "cpu"}
CONFIG = {
    "atlas": ATLAS,
    "pack": {"genes": "hvg", "n_hvg": 1000},
    "pretrain": TRAINING | {"architecture": {"n_d": 16, "n_a": 16, "n_steps": 1}},
    "finetune": TRAINING,
    "integrate": TRAINING | {"score_cells": 5000},
    "explain": {"replicates": 1, "cells_per_type": 20, "deletion_draws": 1, "matched_draws": 20},
}


def main() -> None:
    """Make the cells, run the workflow, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--until", nargs="*", default=[], help="targets; default: all")
    given = parser.parse_args()
    folder = given.folder.resolve()
    with print_line() as line:
        rows = write_atlas(given.cells, folder / "cells")
        (folder / "scale.yaml").write_text(yaml.safe_dump(CONFIG | {"datasets": rows}))
        watch = Watch(folder)
        watch.follow(start_workflow(folder, given.cores, given.until))
        line |= {"cells": given.cells, "genes": N_GENES, **watch.describe()}


def start_workflow(folder: Path, cores: int, targets: list[str]) -> subprocess.Popen:
    """Start snakemake in a folder; what it says goes to stderr."""
    options = ["--cores", str(cores), "--rerun-incomplete", "--configfile", "scale.yaml"]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", *options, "--", *targets],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "src")} | find_commands(),
        stdout=sys.stderr,
    )


class Watch:
    """Memory and CPU seconds of each job, by the name of its log, over all runs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "measured.json"
        self.found: dict[str, Any] = {"disk_mb": 0, "jobs": {}}
        if self.path.exists():
            self.found = json.loads(self.path.read_text())
        self.processes: dict[str, dict[int, tuple[float, float]]] = {}

    def follow(self, workflow: subprocess.Popen) -> None:
        """Watch until the workflow ends; exit where it fails."""
        next_disk = 0.0
        while workflow.poll() is None:
            self.look(psutil.Process(workflow.pid))
            if time.monotonic() > next_disk:
                self.found["disk_mb"] = max(self.found["disk_mb"], self.measure_disk())
                self.path.write_text(json.dumps(self.found, indent=1))
                next_disk = time.monotonic() + 20 * INTERVAL
            time.sleep(INTERVAL)
        self.path.write_text(json.dumps(self.found, indent=1))
        if workflow.returncode:
            sys.exit(f"{self.folder}: the workflow ended with {workflow.returncode}; see above.")

    def look(self, root: psutil.Process) -> None:
        """Note what the jobs of the workflow have taken so far."""
        for shell in root.children(recursive=True):
            try:
                name = LOG.search(" ".join(shell.cmdline()))
                if not name or shell.name() != "bash":
                    continue
                seen = self.processes.setdefault(name[1], {})
                for process in [shell, *shell.children(recursive=True)]:
                    now = read_peak(process.pid), sum(process.cpu_times()[:2])
                    # One that has ended and not been waited for has no memory any more.
                    seen[process.pid] = tuple(map(max, now, seen.get(process.pid, now)))
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            peak, cpu = (round(sum(part), 1) for part in zip(*seen.values(), strict=True))
            self.found["jobs"][name[1]] = {"mb": peak, "cpu_s": cpu}

    def measure_disk(self) -> int:
        """Size in MB of all that the workflow has written."""
        paths = (path for path in (self.folder / "results").rglob("*") if path.is_file())
        return sum(map(size_of, paths)) >> 20

    def describe(self) -> dict[str, Any]:
        """Peak MB and sum of CPU seconds of each rule, and the peak of the disk."""
        rules: dict[str, dict[str, float]] = {}
        for name, job in self.found["jobs"].items():
            mb, cpu_s = map(max, read_benchmark(self.folder, name), (job["mb"], job["cpu_s"]))
            rule = rules.setdefault(
                re.sub(rf"/?({ATLAS}_)?\d+$", "", name), {"mb": 0, "cpu_s": 0, "jobs": 0}
            )
            rule["mb"] = round(max(rule["mb"], mb))
            rule["cpu_s"] = round(rule["cpu_s"] + cpu_s)
            rule["jobs"] += 1
        return {"disk_mb": self.found["disk_mb"], "rules": rules}


def read_benchmark(folder: Path, name: str) -> tuple[float, float]:
    """MB and CPU seconds of a job as Snakemake saw them, which looks less often; 0 where not."""
    path = folder / "benchmarks" / ATLAS / f"{name}.tsv"
    if not path.exists():
        return 0.0, 0.0
    row = pd.read_csv(path, sep="\t").iloc[0]
    return float(row["max_rss"]), float(row["cpu_time"])


def read_peak(pid: int) -> float:
    """The most memory in MB that a process has had resident; 0 for one that has just ended."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def size_of(path: Path) -> int:
    """Size in bytes; 0 for a file that has just gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
