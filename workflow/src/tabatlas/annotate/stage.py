"""Label the cells of a query, embed them, and write both into a copy of its file."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Annotated

import torch

from tabatlas.annotate.annotation import EMBEDDING, PREFIX
from tabatlas.annotate.convert import convert_folder, convert_hdf5
from tabatlas.annotate.model import MIN_GENES, N_ROWS, Model
from tabatlas.annotate.reading import read_query
from tabatlas.annotate.writing import write_annotation
from tabatlas.errors import InputError, UsageError
from tabatlas.fetch.isolate import allow_seconds, call_isolated, iterate_isolated
from tabatlas.provenance import sync_folder

logger = logging.getLogger(__name__)

DAY = 86_400.0  # seconds; an experiment may lie far away


def run(
    query: Annotated[str, "h5ad, 10x h5, folder of a 10x mtx, or SOMA experiment (path or URI)"],
    /,
    model: Annotated[Path, "bundle: the folder NAME@VERSION"],
    out: Annotated[Path, "h5ad to write: the query, with the annotation in it"],
    layer: Annotated[str | None, "raw counts: X, raw/X or a layer; looked for otherwise"] = None,
    min_genes: Annotated[float, "least share of the model's genes"] = MIN_GENES,
    device: Annotated[str, "auto, cpu or cuda"] = "auto",
    threads: Annotated[int | None, "CPU threads of torch; its own choice otherwise"] = None,
) -> None:
    """Label the cells of a query with a finished bundle. All that its file holds is kept."""
    check_usage(query, out, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = Model.load(model, device)
    out = out.resolve()  # a link stays, and what it leads to is written
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".annotate.") as folder:
        written = Path(folder, "query.h5ad")
        place = bring_query(query, written, layer)
        annotate_file(loaded, written, query, place, min_genes)
        put_in_place(written, out)
    logger.info("%s", out)


def check_usage(query: str, out: Path, threads: int | None) -> None:
    """Raise `UsageError` for a command line that cannot be meant, `InputError` for no query."""
    if not is_folder(query) and not Path(query).is_file():
        raise InputError(f"{query}: no such file. Check the path.")
    if Path(query).name.endswith((".mtx", ".mtx.gz")):
        raise UsageError(f"{query}: one of the three files of a 10x matrix. Give their folder.")
    if out.is_dir():
        raise UsageError(f"--out {out}: that is a folder. Name a file.")
    if out.exists() and Path(query).exists() and out.samefile(query):
        raise UsageError(f"--out {out}: that is the query itself. Name another file.")
    if out.suffix != ".h5ad":
        raise UsageError(f"--out {out}: an h5ad is written. Let its name end in `.h5ad`.")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: at least one.")


def bring_query(query: str, path: Path, layer: str | None) -> str | None:
    """Copy the query's h5ad to `path`, or convert the query of another format into one.

    Returns where its counts are, or None to look.
    """
    if is_folder(query):
        return call_isolated(query, DAY, convert_folder, query, path, layer)
    call_isolated(query, allow_seconds(Path(query)), convert_hdf5, query, path)
    return layer


def is_folder(query: str) -> bool:
    """Whether a query is a folder or a URI, and no file."""
    return "://" in query or Path(query).is_dir()


def annotate_file(
    model: Model, path: Path, query: str, layer: str | None, min_genes: float
) -> None:
    """Annotate the h5ad at `path`, which came from `query`, and write into it."""
    seconds = allow_seconds(path)
    reading = iterate_isolated(query, seconds, read_query, path, query, layer, N_ROWS)
    with contextlib.closing(reading) as parts:
        head = next(parts)
        logger.info("%s: %d cells, counts in %s", query, head.n_cells, head.counts)
        match = model.match(head.var, min_genes, query)
        found = model.label_cells(parts, match, head.n_cells)
    obs, obsm = found.describe(model.types), {EMBEDDING: found.place_nz}
    uns = {PREFIX: model.describe(match, head.counts)}
    call_isolated(query, seconds, write_annotation, path, query, obs, obsm, uns)
    counted = found.count_statuses()
    logger.info("%s", ", ".join(f"{n} {status}" for status, n in counted.items()))


def put_in_place(written: Path, out: Path) -> None:
    """Move a finished file to its name, durably."""
    with open(written, "rb") as file:
        os.fsync(file.fileno())
    os.replace(written, out)
    sync_folder(out.parent)
