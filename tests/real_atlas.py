"""Atlases of real cells, built as a user builds them: by the Snakefile, from a YAML file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = os.environ.get("TABATLAS_DATA")
NEEDS_CELLS = [
    pytest.mark.real,
    pytest.mark.skipif(DATA is None, reason="TABATLAS_DATA names no folder of real cells"),
]
ROOT = Path(__file__).parents[1]


def build_atlas(config: Path, cells: Path, folder: Path, *targets: str) -> None:
    """Run the workflow in `folder`, where `data` is the folder of real cells."""
    (folder / "data").symlink_to(cells.resolve())
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "src")}
    done = subprocess.run(
        [*command, *targets, "--configfile", config],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
