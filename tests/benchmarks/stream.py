"""Loaders side by side, from a SOMA experiment to shuffled minibatches, as one line of JSON.

    python tests/benchmarks/stream.py --folder FOLDER [--annbatch PYTHON] [--quick]

Makes 100,000 synthetic cells (`--quick`: 10,000) in FOLDER with the package's own `ingest`,
`split` and `pack`; the experiment is kept for the next run. Then every loader yields minibatches
of 1,024 of the same training cells with their labels, whole epochs, in a process of its own that
has no workers; the loaders take turns, because other users of the machine change the figures.

`*_us` are CPU µs per cell, user and system, of all threads: the median of all epochs of `*_runs`;
`*_wall_us` beside them. `*_entropy` is the label entropy of a minibatch as share of that of
uniform ones of the same size. `tiledb_bare_read` reads what `soma` reads and throws it away;
`in_memory` takes rows of one CSR matrix. `growth_1m` and `anon_memory_ratio` compare a pack of a
million cells (`--quick`: 100,000), made directly and deleted at the end: 8 GB of disk.

Peers: tiledbsoma-ml (the extra `peers`), and annbatch, which needs Python 3.12 and an environment
of its own: envs/annbatch.txt says how to make it, `--annbatch` is its python.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ingest_speed import (
    count_cells,
    measure_append,
    measure_from_h5ad,
    measure_two_writers,
    per_cell,
    run_apart,
)
from stream_data import LABELS, MINIBATCH, Atlas, list_sources, make_atlas, read_train
from stream_large import write_large_pack
from workflow import print_line

from tabatlas import names
from tabatlas.provenance import read_json

HERE = Path(__file__).parent
RUNS = HERE / "stream_runs.py"
# Epochs of a round, so that a round of any loader takes some seconds.
EPOCHS = {
    "packed": 5,
    "in_memory": 5,
    "annbatch": 3,
    "soma": 1,
    "tiledb_bare_read": 1,
    "tiledbsoma_ml": 1,
}
PEERS = ("annbatch", "tiledbsoma_ml")  # what cannot be built or run is told, and no more
ROUNDS = 3
N_STREAMED = 300  # minibatches that are watched for memory


class NotRun(Exception):
    """Why a loader was not run."""


def main() -> None:
    """Make the data, run every loader in turn, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the data lies or is made")
    parser.add_argument("--annbatch", help="python of an environment that has annbatch")
    parser.add_argument("--quick", action="store_true", help="a tenth of the cells")
    given = parser.parse_args()
    n_cells = 10_000 if given.quick else 100_000
    with print_line() as found:
        atlas = make_atlas(given.folder.resolve() / str(n_cells), n_cells)
        found |= {"benchmark": "stream", "minibatch": MINIBATCH} | describe_atlas(atlas)
        found |= measure_ingest(atlas)
        found |= measure_pack(atlas)
        found |= measure_loaders(atlas, given.annbatch)
        for name in ("packed", "soma"):
            found[f"{name}_profile"] = run_loader("profile", name, atlas, 3)
        found |= measure_gpu(atlas)
        found |= measure_growth(atlas, 10 * n_cells)


def describe_atlas(atlas: Atlas) -> dict[str, Any]:
    """Sizes of the atlas."""
    about = read_json(atlas.manifest)
    return {
        "n_cells": about["n_obs"],
        "n_train_cells": len(read_train(atlas)),
        "n_genes": about["n_vars"],
        "n_types": len(LABELS),
        "entries_per_cell": round(about["n_entries"] / about["n_obs"]),
    }


def measure_ingest(atlas: Atlas) -> dict[str, float]:
    """Ingest of a quarter of the cells, beside SOMA's own, and two writers at once."""
    sources = list_sources(atlas)[-2:]
    with tempfile.TemporaryDirectory(dir=atlas.folder) as name:
        folder = Path(name)
        found = measure_append(folder / "append", sources[0])
        found |= measure_from_h5ad(folder / "from_h5ad", sources[0])
        found |= measure_two_writers(folder / "writers", sources)
    return {key: round(value, 2) for key, value in found.items()}


def measure_pack(atlas: Atlas) -> dict[str, float]:
    """Pack all cells anew."""
    n_cells = count_cells(list_sources(atlas))
    for _ in range(2):  # the first compiles the loops, once on every machine
        shutil.rmtree(atlas.pack.parent, ignore_errors=True)
        spent = run_apart(atlas.run_pack)
    found = {name: round(value, 2) for name, value in per_cell("pack", spent, n_cells).items()}
    return found | {"pack_cells_per_cpu_s": round(n_cells / spent.cpu)}


def measure_gpu(atlas: Atlas) -> dict[str, Any]:
    """Cells a second on a GPU, dense and normalized there."""
    if not torch.cuda.is_available():
        return {"gpu_cells_per_s": "not run: no GPU here"}
    run = run_loader("time", "packed_gpu", atlas, EPOCHS["packed"])
    return {"gpu_cells_per_s": round(1e6 / statistics.median(run["wall_us"]))}


def measure_growth(atlas: Atlas, n_cells: int) -> dict[str, Any]:
    """Cost per cell and anonymous memory of the pack, and of one of ten times the cells."""
    with tempfile.TemporaryDirectory(dir=atlas.folder) as name:
        large = Atlas(Path(name))
        write_large_pack(atlas, large, n_cells)
        cost: dict[Atlas, list[float]] = {atlas: [], large: []}
        for _ in range(ROUNDS):
            cost[atlas] += run_loader("time", "packed", atlas, EPOCHS["packed"])["cpu_us"]
            cost[large] += run_loader("time", "packed", large, 1)["cpu_us"]
        memory = [run_loader("memory", "packed", one, N_STREAMED) for one in (atlas, large)]
    small_us, large_us = (statistics.median(one) for one in cost.values())
    peak, before = ([one[key] for one in memory] for key in ("peak_mb", "before_mb"))
    return {
        "large_cells": n_cells,
        "large_packed_us": round(large_us, 2),
        "large_packed_runs": [round(one, 2) for one in cost[large]],
        "growth_1m": round(large_us / small_us, 3),
        "anon_memory_mb": peak,
        "anon_memory_before_mb": before,
        "anon_memory_ratio": round((peak[1] - before[1]) / (peak[0] - before[0]), 3),
    }


def measure_loaders(atlas: Atlas, annbatch: str | None) -> dict[str, Any]:
    """Figures of all loaders, and how many times the others' cost is ours."""
    commands = {name: (sys.executable, RUNS, "time", name, atlas.folder) for name in EPOCHS}
    missing = {}
    try:
        commands["annbatch"] = prepare_annbatch(annbatch, atlas)
    except NotRun as reason:
        missing["annbatch"] = reason
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            try:
                if name not in missing:
                    runs[name].append(run_script(*command, EPOCHS[name]))
            except NotRun as reason:
                if name not in PEERS:
                    raise
                missing[name] = reason
    found = {f"{name}_us": f"not run: {reason}" for name, reason in missing.items()}
    for name in commands.keys() - missing:
        found |= summarize(name, runs[name])
    return found | compare(found)


def prepare_annbatch(python: str | None, atlas: Atlas) -> tuple[object, ...]:
    """The command that measures annbatch, on the training cells as its own shuffled collection.

    Raises `NotRun`.
    """
    if python is None:
        raise NotRun("no --annbatch given")
    script = HERE / "stream_annbatch.py"
    collection, cells = atlas.folder / "annbatch.zarr", atlas.folder / "train.txt"
    if not cells.exists():
        shutil.rmtree(collection, ignore_errors=True)
        aside = cells.with_suffix(".new")
        aside.write_text("\n".join(read_train(atlas)[names.OBS_ID]))
        run_script(python, script, "prepare", collection, aside, *list_sources(atlas))
        aside.rename(cells)
    return python, script, "measure", collection


def run_loader(task: str, name: str, atlas: Atlas, number: int) -> dict[str, Any]:
    """What one of the loaders of stream_runs.py tells of a task."""
    return run_script(sys.executable, RUNS, task, name, atlas.folder, number)


def run_script(*command: object) -> dict[str, Any]:
    """What a script tells in its one line of JSON. Raises `NotRun` where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        last = done.stderr.splitlines()[-1:] or [f"ended with {done.returncode}"]
        raise NotRun(f"{Path(str(command[1])).name} {command[2]}: {last[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def summarize(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over all epochs of a loader's runs, and every epoch's CPU time."""
    cpu_us, wall_us = (
        [round(one, 2) for run in runs for one in run[key]] for key in ("cpu_us", "wall_us")
    )
    found = {
        f"{name}_us": statistics.median(cpu_us),
        f"{name}_wall_us": statistics.median(wall_us),
        f"{name}_runs": cpu_us,
    }
    if name != "tiledb_bare_read":  # it yields no labels
        found[f"{name}_entropy"] = round(statistics.mean(run["entropy"] for run in runs), 4)
    return found


def compare(found: dict[str, Any]) -> dict[str, Any]:
    """The ratios that the bars are about, of loaders that were run."""
    pairs = {
        "tiledbsoma_ml_by_packed": ("tiledbsoma_ml_us", "packed_us"),
        "annbatch_by_packed": ("annbatch_us", "packed_us"),
        "tiledbsoma_ml_by_soma": ("tiledbsoma_ml_us", "soma_us"),
        "soma_by_bare_read": ("soma_us", "tiledb_bare_read_us"),
    }
    return {
        name: round(found[above] / found[below], 2)
        for name, (above, below) in pairs.items()
        if not isinstance(found[above], str)
    }


if __name__ == "__main__":
    main()
