"""Packs, and what they are made of, that were damaged, half written or put in a wrong place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from desk import Case, Desk, spell

from handmade import GAPS, make_gappy, make_obs
from small_atlas import Atlas
from synthetic import make_counts
from tabatlas import names
from tabatlas.provenance import read_json, write_json

COUNTS = make_counts("a", len(GAPS), 40, density=0.2)
ENCODER = {"architecture": {"n_d": 4, "n_a": 4, "n_steps": 1}, "epochs": 1, "threads": 1}


def make(desk: Desk, obs: pd.DataFrame | None = None, **written: object) -> Atlas:
    """An atlas up to its split."""
    return make_gappy(desk.folder / "atlas", COUNTS, obs, **written)


def pack(desk: Desk, atlas: Atlas, shards: Path | None = None, **knobs: object) -> list[str]:
    """`tabatlas pack` of an atlas."""
    flags = {"manifest": atlas.manifest, "split": atlas.cells}
    flags |= {"settings": desk.settle("pack", **knobs)}
    flags |= {"shards": shards or desk.folder / "shards", "pack": desk.out / "manifest.json"}
    return spell("pack", flags)


def pack_missing(desk: Desk, column: str) -> list[str]:
    """`tabatlas pack` of an atlas in which a cell lacks a value."""
    obs = make_obs(GAPS, COUNTS)
    obs.loc[4, column] = None
    return pack(desk, make(desk, obs))


def pack_without_rows(desk: Desk) -> list[str]:
    """`tabatlas pack` of an atlas of which the counts of some cells were never written."""
    row = GAPS[COUNTS.tocoo().row]
    kept = np.flatnonzero(row < 100)
    return pack(desk, make(desk, pieces=[(row[kept], kept)], n_entries=len(kept)))


def pack_cut(desk: Desk) -> list[str]:
    """`tabatlas pack` of an experiment of which a file was cut."""
    atlas = make(desk)
    path = next(atlas.manifest.parent.rglob("X/raw/**/a0.tdb"))
    path.write_bytes(path.read_bytes()[:100])
    return pack(desk, atlas)


def pack_other_split(desk: Desk) -> list[str]:
    """`tabatlas pack` with the split of another experiment."""
    atlas = make(desk)
    parts = pd.read_parquet(atlas.cells)
    parts.assign(**{names.JOINID: np.arange(len(parts))}).to_parquet(atlas.cells)
    return pack(desk, atlas)


def pack_into(desk: Desk, fill: Callable[[Path], object]) -> list[str]:
    """`tabatlas pack` into a folder that holds something."""
    shards = desk.folder / "shards"
    shards.mkdir()
    fill(shards)
    return pack(desk, make(desk), shards)


def pack_into_file(desk: Desk) -> list[str]:
    """`tabatlas pack` into what is a file."""
    shards = desk.folder / "shards"
    shards.write_text("mine")
    return pack(desk, make(desk), shards)


def pretrain(desk: Desk, change: Callable[[Atlas], object]) -> list[str]:
    """`tabatlas pretrain` on a pack that was changed."""
    atlas = make(desk)
    atlas.run_pack(shard_cells=9)
    change(atlas)
    settings = desk.settle("pretrain", **ENCODER)
    flags = {"pack": atlas.pack, "settings": settings, "checkpoints": desk.folder / "steps"}
    return spell("pretrain", flags | {"model": desk.out})


def flip(path: Path, place: int = -3) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_plan(atlas: Atlas) -> None:
    """Another plan than that of the pack's digest."""
    text = atlas.pack.read_text()
    atlas.pack.write_text(text.replace('"block_cells": 512', '"block_cells": 513'))


def forget_pack(atlas: Atlas) -> None:
    """A manifest whose files are gone."""
    for path in sorted(atlas.packed.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def change_format(atlas: Atlas) -> None:
    """A pack of an earlier version."""
    write_json(read_json(atlas.pack) | {"format": 1}, atlas.pack)


def write_genes(desk: Desk) -> Path:
    """A list of one gene, which the atlas lacks."""
    path = desk.folder / "genes.txt"
    path.write_text("ENSG00000141510\n")
    return path


AGAIN = "Run `tabatlas pack` again"
CASES = (
    Case(
        "a label that is missing in the experiment",
        lambda d: pack_missing(d, names.CELL_TYPE),
        ("`cell_type` of the cell with soma_joinid 31 is missing", "Encode missing values"),
        4,
    ),
    Case(
        "a donor that is missing in the experiment",
        lambda d: pack_missing(d, names.DONOR_ID),
        ("`donor_id` of the cell with soma_joinid 31 is missing", "Encode missing values"),
        4,
    ),
    Case(
        "cells whose counts were never written",
        pack_without_rows,
        ("the cell with soma_joinid 101: 0 molecules in X", "run `tabatlas ingest` again"),
        4,
    ),
    Case(
        "an experiment of which a file was cut",
        pack_cut,
        ("manifest.json: the experiment", "cannot be read", "run `tabatlas ingest` again"),
        4,
    ),
    Case(
        "cells of a dataset that the manifest does not name",
        lambda d: pack(d, make(d, datasets=[{"dataset_id": "b"}])),
        ("holds cells of `a`", "Run `tabatlas ingest` again"),
        4,
    ),
    Case(
        "the split of another experiment",
        pack_other_split,
        ("cells.parquet: divides 60 cells", "Run `tabatlas split`"),
        4,
    ),
    Case(
        "a gene list of another atlas",
        lambda d: pack(d, make(d), genes=str(write_genes(d))),
        ("genes.txt: ENSG00000141510 is no gene of the atlas", "Take it out"),
    ),
    Case(
        "a folder of something else",
        lambda d: pack_into(d, lambda shards: (shards / "notes.txt").write_text("mine")),
        ("shards: holds notes.txt, which is no pack", "Name another folder"),
        2,
    ),
    Case(
        "a folder that holds a link",
        lambda d: pack_into(d, lambda shards: (shards / ("0" * 16)).symlink_to(d.folder)),
        (f"shards: holds {'0' * 16}, which is no pack", "Name another folder"),
        2,
    ),
    Case(
        "a file in the folder's place",
        pack_into_file,
        ("shards", "Check the path"),
    ),
    Case(
        "a flipped bit of a shard",
        lambda d: pretrain(d, lambda atlas: flip(atlas.packed / "train" / "00001.count")),
        ("train/00001.gene: the counts of cell 8 are not those", AGAIN),
        4,
    ),
    Case(
        "a flipped bit of a column",
        lambda d: pretrain(d, lambda atlas: flip(atlas.packed / "train" / "cell_type.npy")),
        ("train/cell_type.npy: its bytes are not those", AGAIN),
        4,
    ),
    Case(
        "a missing shard",
        lambda d: pretrain(d, lambda atlas: (atlas.packed / "train" / "00001.gene").unlink()),
        ("train/00001.gene: this file of the pack is missing", AGAIN),
        4,
    ),
    Case(
        "a shard cut short",
        lambda d: pretrain(d, lambda atlas: cut(atlas.packed / "train" / "00001.gene")),
        ("train/00001.gene: ", " bytes, not the ", AGAIN),
        4,
    ),
    Case(
        "a manifest whose files are gone",
        lambda d: pretrain(d, forget_pack),
        ("this file of the pack is missing", AGAIN),
        4,
    ),
    Case(
        "another plan in the manifest",
        lambda d: pretrain(d, change_plan),
        ("manifest.json: not what was written with the pack", AGAIN),
        4,
    ),
    Case(
        "a manifest cut short",
        lambda d: pretrain(d, lambda atlas: cut(atlas.pack)),
        ("manifest.json: not a readable JSON file", "Make it again"),
    ),
    Case(
        "no manifest",
        lambda d: pretrain(d, lambda atlas: atlas.pack.unlink()),
        ("manifest.json: no pack there", "Run `tabatlas pack`"),
        4,
    ),
    Case(
        "a manifest of another format",
        lambda d: pretrain(d, change_format),
        ("manifest.json: pack of format 1, not", "Pack again"),
        4,
    ),
)
