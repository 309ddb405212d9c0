"""A folder in which the workflow runs, and the configuration of a tiny atlas."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SMALL = {"n_d": 4, "n_a": 4, "n_steps": 1, "n_shared": 1, "n_independent": 1}
TRAINING = {"epochs": 1, "threads": 1}
TINY = {
    "atlas": "tiny",
    "datasets": [
        {"dataset_id": "one", "path": "simulate:demo_a"},
        {"dataset_id": "two", "path": "simulate:demo_c"},
    ],
    "simulate": {"n_cells": 600, "n_genes": 800},
    "pretrain": TRAINING | {"architecture": SMALL},
    "finetune": TRAINING,
    # Long enough to be disturbed.
    "integrate": TRAINING
    | {"epochs": 20, "patience": 20, "batch_size": 32, "checkpoint_minutes": 0.002}
    | {"n_latent": 3, "score_cells": 120},
    "explain": {"replicates": 1, "cells_per_type": 5, "markers": "simulate:demo_a"},
}


@dataclass(frozen=True)
class Workdir:
    """A folder in which the workflow runs."""

    path: Path

    def snakemake(self, *arguments, package=None, check=True):
        """Run snakemake there, with the package of this checkout or of `package`."""
        environment = os.environ | {"PYTHONPATH": str(package or ROOT / "workflow" / "src")}
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            check=check,
        )

    def configure(self, **changes):
        """Write the tiny atlas's configuration with other values for some sections."""
        config = dict(TINY)
        for key, value in changes.items():
            whole = not isinstance(value, dict)
            config[key] = value if whole else config.get(key, {}) | value
        path = self.path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return "--configfile", str(path)

    def plan(self, *arguments, package=None):
        """Rules that a dry run would execute, without those that only write settings."""
        done = self.snakemake("--cores", "1", "-n", "--quiet", "rules", *arguments, package=package)
        rows = re.findall(r"^(\w+) +\d+$", done.stdout + done.stderr, re.MULTILINE)
        return set(rows) - {"all", "total", "settings", "dataset_settings"}
