"""What the benchmarks share: the workflow up to a target, and one line of JSON on stdout."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_workflow(folder: Path, config: Path | str, targets: Sequence[Path], cores: int = 2) -> None:
    """Run the workflow in a folder up to its targets; what it says goes to stderr."""
    command = ["-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", str(cores)]
    done = subprocess.run(
        [sys.executable, *command, "--configfile", config, "--", *targets],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "src")} | find_commands(),
        stdout=sys.stderr,
    )
    if done.returncode:
        sys.exit(f"{config}: the workflow ended with {done.returncode}; see above.")


def find_commands() -> dict[str, str]:
    """PATH with the commands of this Python first: its `tabatlas`, not another's."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


@contextlib.contextmanager
def print_line() -> Iterator[dict[str, Any]]:
    """A dictionary to fill; printed as the one line on stdout, whatever else prints meanwhile."""
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        yield found
    print(json.dumps(found, sort_keys=True))


def link_data(data: Path, folder: Path) -> None:
    """Make the folder, with the real cells in it as `data`, as the configurations name them."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(data)
