"""How a pack lies on disk: what `pack` writes and `PackedSource` reads.

manifest.json               written last: content, plan, and every file's size and sha256
shards/<key>/               named by all that it was made from
    genes.parquet           the training genes: id, name, mean, sd, n_measured
    presence.npy            (datasets, g) bool
    levels.json             the texts behind columns of codes
    <part>/indptr.npy       (n + 1,) int64, row pointers over all shards of the part
    <part>/check.npy        (n,) uint64, `gather.sum_entries` of each row
    <part>/<column>.npy     (n,) whole numbers, codes or float32
    <part>/00000.gene       (entries of `shard_cells` cells,) uint16, without a header: its bytes
                            would be in the sum of no row
    <part>/00000.count      the same in the least of uint8, 16 and 32 that holds them
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import digest_file, digest_json, read_json

FORMAT = 2
GENES, PRESENCE, LEVELS = "genes.parquet", "presence.npy", "levels.json"
INDPTR, CHECK = "indptr", "check"
GENE, COUNT = ".gene", ".count"
AGAIN = "Run `tabatlas pack` again (`snakemake --forcerun pack`)."

# Size in bytes and sha256 of each file, by its name within the folder.
Files = Mapping[str, Mapping[str, Any]]


def name_shard(part: str, number: int) -> tuple[str, str]:
    """The two files of a shard."""
    return f"{part}/{number:05d}{GENE}", f"{part}/{number:05d}{COUNT}"


def is_shard(name: str) -> bool:
    """Whether a file holds entries: their rows are proven one by one when they are read."""
    return name.endswith((GENE, COUNT))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a pack."""
    if not path.is_file():
        raise ModelError(f"{path}: no pack there. Run `tabatlas pack` (it is derived).")
    about = read_json(path)
    if about.get("format") != FORMAT:
        raise ModelError(f"{path}: pack of format {about.get('format')}, not {FORMAT}. Pack again.")
    if not is_sealed(about):
        raise IntegrityError(f"{path}: not what was written with the pack. {AGAIN}")
    return about


def seal(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a pack, with its digest; where it lies does not take part."""
    content = {name: value for name, value in about.items() if name not in ("digest", "folder")}
    return content | {"digest": digest_json(content)}


def is_sealed(about: Mapping[str, Any]) -> bool:
    """Whether it still is what was sealed."""
    return seal(about)["digest"] == about.get("digest")


def choose_files(files: Files, part: str) -> Iterator[str]:
    """Names of the files of a part, and of those of all parts."""
    return (name for name in files if "/" not in name or name.startswith(f"{part}/"))


def map_array(path: Path) -> np.ndarray:
    """An array in its file: nothing is read before it is asked for."""
    # As a plain array: the compiled loops look longer at a subclass.
    return np.asarray(np.load(path, mmap_mode="r"))


def map_entries(path: Path, n_entries: int) -> np.ndarray:
    """One of the two files of a shard (n_entries,); its size says how wide its numbers are."""
    if not n_entries:  # an empty file cannot be mapped
        return np.empty(0, dtype=np.uint16)
    return np.asarray(np.memmap(path, f"<u{path.stat().st_size // n_entries}", "r"))


class Watch:
    """Files of a pack as they were when it was opened.

    A file that is cut while it is mapped would end the process at the next read, one that is
    written to would give other cells.
    """

    def __init__(self, folder: Path, files: Files, part: str) -> None:
        self.folder = folder
        # As text: this is asked some twenty times for every minibatch.
        self.paths = {name: str(folder / name) for name in choose_files(files, part)}
        self.stamps: dict[str, tuple[int, int]] = {}
        for name in self.paths:
            self.stamps[name] = self.stamp(name)
            if self.stamps[name][0] != files[name]["bytes"]:
                raise IntegrityError(
                    f"{folder / name}: {self.stamps[name][0]} bytes, not the "
                    f"{files[name]['bytes']} that were packed. {AGAIN}"
                )
            if not is_shard(name) and digest_file(folder / name) != files[name]["sha256"]:
                raise IntegrityError(
                    f"{folder / name}: its bytes are not those that were packed. {AGAIN}"
                )

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and time of the last change."""
        try:
            found = os.stat(self.paths[name])
        except FileNotFoundError:
            raise IntegrityError(
                f"{self.folder / name}: this file of the pack is missing. {AGAIN}"
            ) from None
        return found.st_size, found.st_mtime_ns

    def prove(self, names: Iterable[str]) -> None:
        """Raise `IntegrityError` where one of these files is no longer what was opened."""
        for name in names:
            if self.stamp(name) != self.stamps[name]:
                raise IntegrityError(
                    f"{self.folder / name}: changed while it was being read. {AGAIN}"
                )


class Columns(Mapping[str, np.ndarray]):
    """Mapped arrays over the cells of a part; each is proven whenever it is asked for."""

    def __init__(self, watch: Watch, part: str, columns: Iterable[str]) -> None:
        self.watch = watch
        self.files = {name: f"{part}/{name}.npy" for name in columns}
        self.arrays = {name: map_array(watch.folder / file) for name, file in self.files.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        self.watch.prove([self.files[name]])
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
