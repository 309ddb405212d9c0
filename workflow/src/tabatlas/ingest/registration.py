"""Give every cell its `soma_joinid`, after proof that all sources fit into one experiment."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tabatlas.errors import GeneMismatchError, InputError
from tabatlas.experiment import FORMAT
from tabatlas.ingest.columns import TEXT, ObsColumns
from tabatlas.ingest.digests import digest_frame, digest_genes
from tabatlas.ingest.registry import Dataset
from tabatlas.ingest.sources import Source, read_cells, read_genes, read_source, var_of
from tabatlas.names import JOINID, MEASURED, OBS_ID
from tabatlas.provenance import digest_json


@dataclass(frozen=True)
class Survey:
    """What all sources hold together: datasets with their rows, obs columns, and var."""

    sources: tuple[Source, ...]
    datasets: tuple[Dataset, ...]
    columns: ObsColumns
    var: pd.DataFrame

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.datasets[-1].stop_joinid


def pair_sources(paths: Sequence[Path], facts: Sequence[Path]) -> list[Source]:
    """Read the facts of all sources; return them by dataset id.

    Raises `InputError` or `GeneMismatchError` where they do not fit into one experiment.
    """
    if not paths or len(paths) != len(facts):
        raise InputError(
            f"{len(paths)} sources and {len(facts)} facts: give one facts file per source."
        )
    sources = sorted(map(read_source, paths, facts), key=lambda source: source.dataset_id)
    for source in sources:
        if not source.n_cells:
            raise InputError(
                f"{source.path}: no cell in it. Loosen the limits of `qc` or leave it out."
            )
    first = sources[0]
    for before, source in itertools.pairwise(sources):
        if source.dataset_id == before.dataset_id:
            raise InputError(
                f"{before.path} and {source.path}: both are dataset `{source.dataset_id}`. "
                "Give each dataset an id of its own."
            )
        if source.organism != first.organism:
            raise InputError(
                f"{source.path}: {source.organism}, but {first.path}: {first.organism}. "
                "An atlas has one organism; make one for each."
            )
        if source.genes_digest != first.genes_digest:
            raise GeneMismatchError(
                f"{source.path}: another gene list than {first.path} ({source.n_genes} and "
                f"{first.n_genes} genes). Run `normalize` again for both with one list."
            )
    return sources


def digest_sources(sources: Sequence[Source], normalized: bool) -> str:
    """sha256 of all that an experiment is made from: it names the experiment's place.

    A layout that changes needs a new `FORMAT`, or what stands there would be kept.
    """
    digests = [[source.dataset_id, source.digest] for source in sources]
    return digest_json({"format": FORMAT, "normalized": normalized, "sources": digests})


def survey_sources(sources: Sequence[Source]) -> Survey:
    """Read obs and var of all sources; give datasets contiguous rows in the order of `sources`.

    Raises `InputError` for obs that differ in columns or repeat an id, `GeneMismatchError` for
    differing genes.
    """
    columns, datasets, ids_by_source, first_joinid = ObsColumns(), [], [], 0
    for row, source in enumerate(sources):
        cells, genes = read_cells(source, first_joinid), read_genes(source)
        if row == 0:
            var = var_of(genes)
        if not var_of(genes).equals(var):
            raise GeneMismatchError(
                f"{source.path}: its genes are not those of {sources[0].path}, or in another "
                "order. Run `normalize` again for both with one list."
            )
        columns.add(source, cells)
        datasets.append(describe_dataset(source, row, cells, genes))
        ids_by_source.append(pa.array(cells[OBS_ID], type=TEXT))
        first_joinid += len(cells)
    check_unique(sources, ids_by_source)
    return Survey(tuple(sources), tuple(datasets), columns, var)


def describe_dataset(source: Source, row: int, cells: pd.DataFrame, genes: pd.DataFrame) -> Dataset:
    """The registry's row of a source from its `read_cells` and `read_genes`."""
    return Dataset(
        dataset_id=source.dataset_id,
        row=row,
        first_joinid=int(cells[JOINID].iloc[0]),
        n_obs=source.n_cells,
        n_entries=source.n_entries,
        total=source.total,
        n_measured=source.n_measured,
        digest=source.digest,
        obs_digest=digest_frame(cells),
        measured_digest=digest_genes(np.flatnonzero(genes[MEASURED])),
    )


def check_unique(sources: Sequence[Source], ids_by_source: Sequence[pa.Array]) -> None:
    """Raise `InputError` naming the files where an `obs_id` stands twice."""
    ids = pa.chunked_array(ids_by_source)
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counted = pc.value_counts(ids)
    repeated = counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"]
    holders = [
        str(source.path)
        for source, own in zip(sources, ids_by_source, strict=True)
        if pc.is_in(repeated, value_set=own).as_py()
    ]
    raise InputError(
        f"{' and '.join(holders)}: obs_id `{repeated}` stands there twice. "
        "Barcodes must be unique within a dataset; make them so before `fetch`."
    )
