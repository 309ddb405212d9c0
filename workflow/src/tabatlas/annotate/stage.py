"""Label the cells of a query, embed them, and write both into a copy of its file."""

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
    threads: Annotated[int | None, "CPU threads of torch; all cores otherwise"] = None,
) -> None:
    """Label the cells of a query with a finished bundle. All that its file holds is kept."""
    check_usage(query, out, min_genes, device, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = Model.load(model, device)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".annotate.") as folder:
        written = Path(folder, "query.h5ad")
        bring_query(query, written, layer)
        annotate_file(loaded, written, query, layer, min_genes)
        os.replace(written, out)
    logger.info("%s", out)


def check_usage(query: str, out: Path, min_genes: float, device: str, threads: int | None) -> None:
    """Raise `UsageError` for a command line that cannot be meant."""
    if out.exists() and Path(query).exists() and out.samefile(query):
        raise UsageError(f"--out {out}: that is the query itself. Name another file.")
    if out.suffix != ".h5ad":
        raise UsageError(f"--out {out}: an h5ad is written. Let its name end in `.h5ad`.")
    if not 0 <= min_genes <= 1:
        raise UsageError(f"--min-genes {min_genes}: a share lies between 0 and 1.")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: `auto`, `cpu` or `cuda`.")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: at least one.")


def bring_query(query: str, path: Path, layer: str | None) -> None:
    """A copy of the query's h5ad at `path`, or the query of another format as one."""
    if "://" in query or Path(query).is_dir():
        call_isolated(query, DAY, convert_folder, query, path, layer)
    elif Path(query).is_file():
        call_isolated(query, allow_seconds(Path(query)), convert_hdf5, query, path)
    else:
        raise InputError(f"{query}: no such file. Check the path.")


def annotate_file(
    model: Model, path: Path, query: str, layer: str | None, min_genes: float
) -> None:
    """Annotate the h5ad at `path`, which came from `query`, and write into it."""
    seconds = allow_seconds(path)
    parts = iterate_isolated(query, seconds, read_query, path, query, layer, N_ROWS)
    head = next(parts)
    logger.info("%s: %d cells, counts in %s", query, head.n_cells, head.counts)
    match = model.match(head.var, min_genes, query)
    found = model.label_cells(parts, match, head.n_cells)
    obs, obsm = found.describe(model.types), {EMBEDDING: found.place_nz}
    uns = {PREFIX: model.describe(match, head.counts)}
    call_isolated(query, seconds, write_annotation, path, query, obs, obsm, uns)
    counted = found.count_statuses()
    logger.info("%s", ", ".join(f"{n} {status}" for status, n in counted.items()))
