"""Bundles that were changed, are of another format, or are none."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from desk import Case, Desk

from foreign import write_foreign
from tabatlas.bundle.verify import ABOUT, SUMS, name_version
from tabatlas.provenance import digest_files, read_json, write_json
from tabatlas.train.model import WEIGHTS
from tabatlas.train.tensors import read_tensors, write_tensors

Change = Callable[[Path], None]


def write_sums(folder: Path) -> dict[str, str]:
    """Make the hashes fit the files again."""
    files = {name: sha for name, sha in digest_files(folder).items() if name != SUMS}
    (folder / SUMS).write_text("".join(f"{sha}  {name}\n" for name, sha in files.items()))
    return files


def seal(folder: Path) -> None:
    """Make hashes and version fit again, as one who builds a bundle by hand would."""
    version = name_version("0.1.0", write_sums(folder))
    write_json(read_json(folder / ABOUT) | {"version": version}, folder / ABOUT)
    write_sums(folder)


def change_head(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Other weights in the head of the classifier, in a bundle that is sealed again."""

    def change_bundle(folder: Path) -> None:
        tensors, state = read_tensors(folder / WEIGHTS)
        name = "classifier/head.weight"
        write_tensors(tensors | {name: change(tensors[name])}, state, folder / WEIGHTS)
        seal(folder)

    return change_bundle


def flip_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def edit_about(**values: Any) -> Change:
    return lambda folder: write_json(read_json(folder / ABOUT) | values, folder / ABOUT)


def edit_labels_and_sums(folder: Path) -> None:
    (folder / "labels.json").write_text((folder / "labels.json").read_text().replace("0", "1"))
    write_sums(folder)


def pickle_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    torch.save({"weights": torch.zeros(3)}, folder)


BROKEN: tuple[tuple[str, Change, tuple[str, ...]], ...] = (
    ("a changed byte", flip_byte, ("safetensors: its bytes are not those of", "get it again")),
    ("a missing file", remove("labels.json"), ("labels.json: this file", "missing", "again")),
    ("a changed file", write("labels.json", "[]"), ("labels.json: its bytes", "get it again")),
    ("changed with its hash", edit_labels_and_sums, ("SHA256SUMS: its hashes", "version 0.1.0")),
    ("a newer format", edit_about(format=2), ("format 2", "reads format 1", "update this one")),
    ("another version", edit_about(version="9.9.9"), ("bundle.json: its bytes", "get it again")),
    ("no hashes", remove(SUMS), ("SHA256SUMS: missing", "tabatlas bundle")),
    ("garbled description", write(ABOUT, "{"), ("bundle.json: not the description", "again")),
    ("hash of a file elsewhere", write(SUMS, f"{'0' * 64}  ../a\n"), ("line 1: no hash", "again")),
    ("a pickle instead", pickle_instead, ("a file, but a bundle is the folder", "never loaded")),
    ("no such folder", shutil.rmtree, ("bundle.json: missing", "tabatlas bundle")),
)
# Hashes are right: whoever built it built it so.
UNUSABLE: tuple[tuple[str, Change, tuple[str, ...]], ...] = (
    (
        "weights that are NaN",
        change_head(lambda head: head * torch.nan),
        ("`classifier/head.weight` hold NaN", "another version of the model"),
    ),
    (
        "weights of another shape",
        change_head(lambda head: head[:, :-1]),
        ("weights do not fit the architecture", "classifier"),
    ),
)


def break_copy(desk: Desk, change: Change) -> Path:
    """A copy of the sound bundle, changed."""
    copy = shutil.copytree(desk.bundle, desk.folder / desk.bundle.name)
    change(copy)
    return copy


def verify(change: Change) -> Callable[[Desk], list[str]]:
    return lambda desk: ["verify", str(break_copy(desk, change))]


def annotate(change: Change) -> Callable[[Desk], list[str]]:
    def arrange(desk: Desk) -> list[str]:
        write_foreign(desk.file)
        return desk.annotate(model=break_copy(desk, change))

    return arrange


def describe(desk: Desk) -> list[str]:
    return ["models", "info", str(break_copy(desk, flip_byte))]


CASES = (
    *(Case(f"verify, {name}", verify(change), says, 4) for name, change, says in BROKEN),
    *(Case(f"annotate, {name}", annotate(one), says, 4) for name, one, says in BROKEN + UNUSABLE),
    Case("info, a changed byte", describe, ("its bytes are not those", "get it again"), 4),
    Case(
        "list, an empty folder",
        lambda desk: ["models", "list", str(desk.folder)],
        ("no bundle in it", "Give the folder"),
    ),
)
