"""Write the SOMA experiment: `register` once, `append` per dataset in parallel, `seal` once."""

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tabatlas.experiment import locate_store
from tabatlas.ingest.appending import append_dataset
from tabatlas.ingest.context import open_registered, tell_failure
from tabatlas.ingest.creation import ensure_experiment
from tabatlas.ingest.digests import digest_frame
from tabatlas.ingest.registration import digest_sources, pair_sources, survey_sources
from tabatlas.ingest.registry import Registry, read_formatted, read_registry, write_formatted
from tabatlas.ingest.sealing import Receipt, match_receipts, pin_moment, verify_experiment
from tabatlas.ingest.settings import IngestSettings
from tabatlas.ingest.sources import read_source

logger = logging.getLogger(__name__)


def register(
    sources: Annotated[list[Path], "normalized h5ads"],
    facts: Annotated[list[Path], "their JSONs from `normalize`, in the same order"],
    settings: Annotated[Path, "settings/ingest.json"],
    store: Annotated[Path, "folder of the experiments; the settings' `uri` goes before it"],
    registry: Annotated[Path, "registry.json to write"],
) -> None:
    """Assign every soma_joinid; write obs and var; create the empty matrices.

    The experiment lies in a folder named by its sources: other sources never touch it, and a
    repeat keeps what is there.
    """
    chosen = IngestSettings.read(settings)
    found = pair_sources(sources, facts)
    digest = digest_sources(found, chosen.normalized)
    survey = survey_sources(found)
    folder = chosen.uri or os.path.relpath(store, registry.parent)
    planned = Registry(
        uri=f"{folder.rstrip('/')}/{digest[:12]}",
        sources_digest=digest,
        organism=found[0].organism,
        n_obs=survey.n_obs,
        n_vars=len(survey.var),
        genes_digest=found[0].genes_digest,
        var_digest=digest_frame(survey.var),
        normalized=chosen.normalized,
        datasets=survey.datasets,
    )
    uri = locate_store(planned.uri, registry)
    with tell_failure(uri):
        ensure_experiment(uri, digest, survey, chosen.normalized)
    write_formatted(asdict(planned), registry)
    logger.info("%d cells of %d datasets registered in %s", planned.n_obs, len(found), uri)


def append(
    source: Annotated[Path, "normalized h5ad of one dataset"],
    facts: Annotated[Path, "its JSON from `normalize`"],
    settings: Annotated[Path, "settings/ingest.json"],
    registry: Annotated[Path, "registry.json"],
    receipt: Annotated[Path, "JSON to write: what was written"],
) -> None:
    """Write the counts of one dataset at its registered rows.

    A repeat writes only what is missing; other datasets may be appended at the same time.
    """
    chosen, about = IngestSettings.read(settings), read_registry(registry)
    found = read_source(source, facts)
    uri = locate_store(about.uri, registry)
    with tell_failure(uri), open_registered(uri, about.sources_digest) as experiment:
        tally = append_dataset(experiment, found, about, chosen.block_entries)
    written = Receipt(
        dataset_id=found.dataset_id,
        sources_digest=about.sources_digest,
        n_obs=tally.n_obs,
        n_entries=tally.n_entries,
        total=tally.total,
        counts_digest=tally.digest(),
    )
    write_formatted(asdict(written), receipt)
    logger.info("%s: %d cells, %d counts", written.dataset_id, written.n_obs, written.n_entries)


def seal(
    registry: Annotated[Path, "registry.json"],
    receipts: Annotated[list[Path], "the JSONs that `append` wrote, one per dataset"],
    manifest: Annotated[Path, "manifest.json to write"],
) -> None:
    """Read everything back, compare it with the sources, and write the manifest last.

    Readers open the experiment through the manifest, as it was at this moment.
    """
    about = read_registry(registry)
    matched = match_receipts(about, [Receipt(**read_formatted(path)) for path in receipts])
    uri, timestamp = locate_store(about.uri, registry), pin_moment()
    with (
        tell_failure(uri),
        open_registered(uri, about.sources_digest, timestamp) as experiment,
    ):
        digest = verify_experiment(experiment, about, matched)
    sealed = asdict(about) | {
        "uri": relate_uri(about.uri, registry, manifest),
        "timestamp": timestamp,
        "digest": digest,
        "n_entries": sum(dataset.n_entries for dataset in about.datasets),
        "total": sum(dataset.total for dataset in about.datasets),
    }
    write_formatted(sealed, manifest)
    logger.info("%d cells of %d datasets sealed: %s", about.n_obs, len(matched), digest[:12])


def relate_uri(uri: str, holder: Path, new_holder: Path) -> str:
    """The form that a uri in the file `holder` takes in `new_holder`: relative stays relative."""
    if "://" in uri or os.path.isabs(uri):
        return uri
    return os.path.relpath(holder.parent / uri, new_holder.parent)
