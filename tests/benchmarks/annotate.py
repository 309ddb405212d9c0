"""Speed and memory of `tabatlas annotate` beside two peers, as one line of JSON.

    python tests/benchmarks/annotate.py --model BUNDLE --query CELLS.h5ad [--copies 2 8]
        [--many 64] [--celltypist PYTHON]

The query's cells are repeated `copies` times, for tabatlas alone also `many` times. Milliseconds
and bytes per cell are slopes between two sizes, of the sum over all processes of the command;
between small ones memory drowns in what a block needs. The peers do the whole task in memory:
scanpy and a logistic regression, and CellTypist in an environment of its own (envs/celltypist.txt
says how to make it; `--celltypist` is its python). Both learn from the labels that the bundle gave
to 2,000 cells, which is not timed. Times are CPU seconds of all processes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import psutil
from workflow import find_commands, print_line

LEARN, PREDICT = "learn", "predict"
N_TAUGHT = 2000


def main() -> None:
    """Annotate two sizes of the query with each method and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="bundle")
    parser.add_argument("--query", type=Path, required=True, help="h5ad with counts in X")
    parser.add_argument("--copies", type=int, nargs=2, default=(2, 8), help="sizes of the query")
    parser.add_argument("--many", type=int, default=64, help="largest size, for tabatlas alone")
    parser.add_argument("--celltypist", help="python of an environment that has CellTypist")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, print_line() as found:
        folder = Path(name)
        sizes = [*given.copies, given.many]
        queries = [folder / f"{n}.h5ad" for n in sizes]
        n_cells = [repeat_cells(given.query, *one) for one in zip(sizes, queries, strict=True)]
        runs = [run_tabatlas(given.model, query) for query in queries]
        taught = teach_cells(queries[0].with_suffix(".out.h5ad"), folder)
        found |= {"benchmark": "annotate", "n_cells": n_cells}
        found["tabatlas"] = compare(runs[:2], n_cells[:2]) | {
            "many": compare(runs[1:], n_cells[1:])
        }
        for peer, python in (("scanpy", sys.executable), ("celltypist", given.celltypist)):
            found[peer] = run_peer(peer, python, taught, queries[:2], n_cells[:2])


def repeat_cells(query: Path, copies: int, path: Path) -> int:
    """Write the query several times over; return the number of cells."""
    adata = ad.read_h5ad(query)
    several = ad.concat([adata] * copies, index_unique="-", merge="first")
    ad.AnnData(several.X, several.obs[[]], several.var).write_h5ad(path, compression="gzip")
    return several.n_obs


def run_tabatlas(model: Path, query: Path) -> dict[str, float]:
    """The command on a query."""
    out = query.with_suffix(".out.h5ad")
    command = ["tabatlas", "annotate", query, "--model", model, "--out", out, "--threads", "2"]
    return measure_command(command)


def measure_command(command: Sequence[object]) -> dict[str, float]:
    """CPU seconds, wall seconds and peak memory in bytes of a command and its children."""
    start = time.monotonic()
    process = psutil.Popen([str(word) for word in command], stdout=sys.stderr, env=environment())
    peak, seconds = 0, {}
    while process.poll() is None:
        memory = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                times = one.cpu_times()
                memory += one.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            seconds[one.pid] = times.user + times.system
        peak = max(peak, memory)
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}; see above.")
    return {"cpu": sum(seconds.values()), "wall": time.monotonic() - start, "peak": peak}


def environment() -> dict[str, str]:
    """The environment with this Python's commands first."""
    return dict(os.environ) | find_commands()


def compare(runs: Sequence[dict[str, float]], n_cells: Sequence[int]) -> dict[str, float]:
    """What a cell costs beyond the fixed part, and the larger run as a whole."""
    more = n_cells[1] - n_cells[0]
    small, large = runs
    return {
        "cpu_ms_per_cell": round(1e3 * (large["cpu"] - small["cpu"]) / more, 4),
        "bytes_per_cell": round((large["peak"] - small["peak"]) / more),
        "cpu_s": round(large["cpu"], 2),
        "wall_s": round(large["wall"], 2),
        "peak_mb": round(large["peak"] / 1e6),
    }


def teach_cells(annotated: Path, folder: Path) -> Path:
    """Cells with labels for the peers to learn from."""
    adata = ad.read_h5ad(annotated)
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:N_TAUGHT]
    path = folder / "taught.h5ad"
    labels = adata.obs["tabatlas_label_unfiltered"].iloc[rows].astype(str)
    obs = pd.DataFrame({"label": labels.to_numpy()}, index=adata.obs_names[rows])
    ad.AnnData(adata.X[rows], obs, adata.var[[]]).write_h5ad(path)
    return path


def run_peer(
    peer: str, python: str | None, taught: Path, queries: Sequence[Path], n_cells: Sequence[int]
) -> dict[str, float] | str:
    """A peer on the same queries, or why it was not run."""
    if python is None:
        return "not run: no --celltypist given"
    script, model = Path(__file__).with_name("annotate_peers.py"), taught.with_suffix(".pkl")
    subprocess.run([python, script, peer, LEARN, taught, model], check=True, stdout=sys.stderr)
    runs = []
    for query in queries:
        out = query.with_suffix(f".{peer}.h5ad")
        runs.append(measure_command([python, script, peer, PREDICT, query, model, out]))
    return compare(runs, n_cells)


if __name__ == "__main__":
    main()
