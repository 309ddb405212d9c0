"""Speed of `ingest`, and of `tiledbsoma.io.from_h5ad` on the same cells; for stream.py.

Sources are normalized h5ads with their facts as JSON beside them. CPU time is that of a fresh
process and all its threads, between the import of the libraries and the end of the call.
"""

import multiprocessing as mp
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import tiledbsoma
import tiledbsoma.io

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic import IngestRun
from tabatlas.provenance import read_json


def measure_append(folder: Path, source: Path) -> dict[str, float]:
    """Register, append and seal one source in `folder`, which must be new.

    `ingest_*` are of `append` alone. CPU µs per cell come first, wall µs beside them.
    """
    run = IngestRun(folder, [source])
    run.choose()
    n_cells = count_cells([source])
    found = per_cell("register", run_apart(run.register), n_cells)
    appended = run_apart(append_watched, run, 0)
    found |= per_cell("ingest", appended, n_cells)
    found["ingest_cells_per_cpu_s"] = n_cells / appended.cpu
    found["ingest_tiledb_write_share"] = appended.inside / appended.cpu
    return found | per_cell("seal", run_apart(run.seal), n_cells)


def measure_from_h5ad(folder: Path, source: Path) -> dict[str, float]:
    """The same cells by `tiledbsoma.io.from_h5ad` with its defaults, into a new `folder`."""
    n_cells = count_cells([source])
    spent = run_apart(tiledbsoma.io.from_h5ad, str(folder), str(source), "RNA")
    found = per_cell("from_h5ad", spent, n_cells)
    return found | {"from_h5ad_cells_per_cpu_s": n_cells / spent.cpu}


def measure_two_writers(
    folder: Path, sources: Sequence[Path], repeats: int = 3
) -> dict[str, float]:
    """Cells per second of two appends at once over those of one alone, for two like sources.

    The least time of each over all repeats: other users of the machine can only add to it.
    `*_cpu_ratio` has CPU for wall time: what the ratio is where each writer has a core.
    """
    alone, both = [], []
    for repeat in range(repeats):
        for numbers, spents in (((0,), alone), ((1,), alone), ((0, 1), both)):
            run = IngestRun(folder / f"{repeat}-{'-'.join(map(str, numbers))}", sources)
            run.choose()
            run.register()
            spents.append(append_at_once(run, numbers))
    wall, wall_both = (min(one.wall for one in spents) for spents in (alone, both))
    cpu, cpu_both = (min(one.cpu for one in spents) for spents in (alone, both))
    return {
        "ingest_two_writers_ratio": 2 * wall / wall_both,
        "ingest_two_writers_cpu_ratio": 2 * cpu / (cpu_both / 2),
        "ingest_two_writers_wall_us": wall_both / count_cells(sources) * 1e6,
    }


@dataclass(frozen=True)
class Spent:
    """Seconds of a call: CPU of all threads, wall, and CPU within TileDB's write."""

    cpu: float
    wall: float
    inside: float = 0.0


def run_apart(function: Callable[..., Any], *given: Any) -> Spent:
    """What a call takes in a process of its own."""
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(spend, (function, *given))


def spend(function: Callable[..., Any], *given: Any) -> Spent:
    """What a call takes here; the function may tell what it spent inside TileDB's write."""
    cpu, wall = time.process_time(), time.perf_counter()
    inside = function(*given)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Spent(cpu, wall, inside if isinstance(inside, float) else 0.0)


def append_watched(run: IngestRun, number: int) -> float:
    """Append one source; return the CPU seconds within TileDB's write."""
    with watch_write() as parts:
        run.append(number)
    return sum(parts)


@contextmanager
def watch_write() -> Iterator[list[float]]:
    """CPU seconds of every write of a sparse array."""
    parts, write = [], tiledbsoma.SparseNDArray.write

    def watched(*given: Any, **named: Any) -> Any:
        start = time.process_time()
        written = write(*given, **named)
        parts.append(time.process_time() - start)
        return written

    with mock.patch.object(tiledbsoma.SparseNDArray, "write", watched):
        yield parts


def append_at_once(run: IngestRun, numbers: Sequence[int]) -> Spent:
    """What it takes until these sources are appended, each by a process of its own."""
    context = mp.get_context("spawn")
    ready = context.Barrier(len(numbers) + 1)
    with context.Pool(len(numbers), stand_ready, (ready,)) as pool:
        ready.wait()
        start = time.perf_counter()
        spent = pool.starmap(spend, [(run.append, number) for number in numbers], chunksize=1)
        return Spent(sum(one.cpu for one in spent), time.perf_counter() - start)


def stand_ready(ready: Barrier) -> None:
    """Wait until all processes have their imports behind them."""
    ready.wait()


def per_cell(name: str, spent: Spent, n_cells: int) -> dict[str, float]:
    """CPU and wall µs per cell under a benchmark's names."""
    return {
        f"{name}_us": spent.cpu / n_cells * 1e6,
        f"{name}_wall_us": spent.wall / n_cells * 1e6,
    }


def count_cells(sources: Sequence[Path]) -> int:
    """Cells of all sources, after their facts."""
    return sum(read_json(source.with_suffix(".json"))["n_cells"] for source in sources)
