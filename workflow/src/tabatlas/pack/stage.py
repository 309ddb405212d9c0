"""Write the training cache: what training reads, and nothing of the test."""

import contextlib
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError, IntegrityError, UsageError, show
from tabatlas.experiment import Experiment, open_experiment
from tabatlas.pack.building import COLUMNS, PACKED, build_pack, shuffle_cells
from tabatlas.pack.settings import PackSettings
from tabatlas.provenance import (
    digest_file,
    digest_files,
    digest_json,
    list_files,
    read_json,
    stage_digest,
    sync_folder,
    write_json,
)
from tabatlas.stream import layout
from tabatlas.tables import read_table

logger = logging.getLogger(__name__)

CONTENT = "content.json"  # of a pack's folder, written last
LOCK = ".lock"
OWN_FOLDER = re.compile(r"\.?[0-9a-f]{16}")
PLAN = {"block_cells", "buffer_cells"}


def run(
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/cells.parquet"],
    settings: Annotated[Path, "settings/pack.json"],
    shards: Annotated[Path, "folder of the cache to write"],
    pack: Annotated[Path, "manifest.json to write, last"],
) -> None:
    """Write shuffled CSR shards of the training genes, and the statistics of the genes.

    A pack lies in a folder that is named by all that it was made from: one of the same stays,
    where its files are still those that were written; others are deleted.
    """
    chosen = PackSettings.read(settings)
    list_packs(shards)
    with lock_folder(shards), open_experiment(manifest) as experiment:
        folder = shards / name_pack(experiment, split, chosen)
        if not is_whole(folder):
            make_pack(experiment, split, chosen, folder)
        # Whoever trains on the same files by another plan trains another model.
        content = read_json(folder / CONTENT) | {"plan": chosen.model_dump(include=PLAN)}
        about = layout.seal(content) | {"folder": os.path.relpath(folder, pack.parent)}
        write_json(about, pack)
    sizes = [about["parts"][part]["n_cells"] for part in PACKED]
    logger.info("%d training and %d validation cells in %s", *sizes, folder)


def list_packs(shards: Path) -> list[Path]:
    """Folders of packs, whole or not. Raises `UsageError` for anything else: it is not ours."""
    found = [one for one in shards.iterdir() if one.name != LOCK] if shards.exists() else []
    for one in found:
        if not OWN_FOLDER.fullmatch(one.name) or one.is_symlink() or not one.is_dir():
            raise UsageError(
                f"--shards {shards}: holds {show(one.name)}, which is no pack. Name another folder."
            )
    return found


@contextlib.contextmanager
def lock_folder(shards: Path) -> Iterator[None]:
    """Keep others from packing there meanwhile. Raises `UsageError` where another one does.

    Each would delete what the other has half written.
    """
    shards.mkdir(parents=True, exist_ok=True)
    with open(shards / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"--shards {shards}: another `tabatlas pack` is writing there. Wait for its end."
            ) from None
        except OSError:
            logger.warning("%s: this file system has no locks; pack there once at a time", shards)
        yield


def name_pack(experiment: Experiment, split: Path, chosen: PackSettings) -> str:
    """Digest of all that the files of a pack depend on: 16 hex digits."""
    made_from = {
        "format": layout.FORMAT,
        "code": stage_digest("pack"),
        "experiment": experiment.digest,
        "split": digest_file(split),
        "settings": chosen.model_dump(exclude={*PLAN, "memory_bytes", "genes"}),
        "genes": chosen.genes
        if chosen.genes in ("all", "hvg")
        else digest_file(Path(chosen.genes)),
    }
    return digest_json(made_from)[:16]


def is_whole(folder: Path) -> bool:
    """Whether a pack stands there and every file is still the one that was written."""
    if not folder.exists():
        return False
    try:
        content = read_json(folder / CONTENT)
    except InputError:  # missing or damaged, as any other file may be
        content = {}
    found = {name: one for name, one in digest_files(folder).items() if name != CONTENT}
    whole = layout.is_sealed(content) and found == {
        name: one["sha256"] for name, one in content["files"].items()
    }
    if not whole:
        logger.warning("%s: its files are not those that were packed; packing again", folder)
    return whole


def make_pack(experiment: Experiment, split: Path, chosen: PackSettings, folder: Path) -> None:
    """Build a pack aside and give it its name when it is whole; delete all others."""
    for old in list_packs(folder.parent):
        shutil.rmtree(old)
    building = folder.with_name(f".{folder.name}")
    building.mkdir()
    cells = shuffle_cells(read_cells(experiment, split), chosen.seed)
    parts = build_pack(experiment, cells, chosen, building)
    sizes = {name: (building / name).stat().st_size for name in list_files(building)}
    content = {
        "format": layout.FORMAT,
        "experiment": experiment.digest,
        "organism": experiment.about["organism"],
        "columns": COLUMNS,
        "shard_cells": chosen.shard_cells,
        "parts": parts,
        "files": {
            name: {"bytes": sizes[name], "sha256": digest}
            for name, digest in digest_files(building).items()
        },
    }
    write_json(layout.seal(content), building / CONTENT)
    building.rename(folder)
    sync_folder(folder.parent)


def read_cells(experiment: Experiment, split: Path) -> pd.DataFrame:
    """Every cell with its part and all that a model may learn from.

    Raises `IntegrityError` where the split is not of these cells.
    """
    stored = [name for name in COLUMNS if name not in (names.JOINID, names.DONOR, "dataset")]
    cells = experiment.read_cells(stored)
    parts = read_table(split, [names.JOINID, names.SPLIT])
    parts = parts.sort_values(names.JOINID, ignore_index=True)
    if not parts[names.JOINID].equals(cells[names.JOINID]):
        raise IntegrityError(
            f"{split}: divides {len(parts)} cells, which are not the {len(cells)} of the "
            "experiment. Run `tabatlas split` and what follows again."
        )
    return cells.assign(**{names.SPLIT: parts[names.SPLIT]})
