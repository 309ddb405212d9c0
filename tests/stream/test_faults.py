"""A pack that is damaged, or changes while it is read, gives no other cells."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from handmade import GAPS, make_gappy
from small_atlas import Atlas
from synthetic import make_counts
from tabatlas import names
from tabatlas.errors import InputError, IntegrityError, ModelError
from tabatlas.pack import stage as pack
from tabatlas.provenance import read_json
from tabatlas.stream import packed
from tabatlas.stream.packed import PackedSource

LABELS = ("type2", "type0")


def make_counts_up_to(largest: int) -> sp.csr_matrix:
    """Counts of 60 cells and 40 genes, some of which are the largest."""
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    counts.data = counts.data % largest + 1
    counts.data[::50] = largest
    return counts


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> dict[int, Atlas]:
    """A pack of each width of counts, by bytes per count."""
    made = {}
    for width, largest in ((1, 255), (2, 256), (4, 1 << 16)):
        counts = make_counts_up_to(largest)
        made[width] = make_gappy(tmp_path_factory.mktemp("pack"), counts)
        made[width].run_pack(shard_cells=25)
    return made


# A shard on disk.


def test_counts_are_packed_as_they_are(tmp_path):
    """Beyond 2²⁴ a float32 holds every second whole number."""
    largest = (1 << 24) + 1
    atlas = make_gappy(tmp_path, make_counts_up_to(largest))
    atlas.run_pack()
    assert PackedSource(atlas.pack, "train").map_shard(0)[1].max() == largest


@pytest.mark.parametrize("width", [1, 2, 4])
def test_every_flipped_byte_of_a_shard_is_refused(packs, width):
    source = PackedSource(packs[width].pack, "train")
    rows = np.arange(len(source))
    for name in ("00001.gene", "00001.count"):
        path = source.folder / "train" / name
        content, seen = path.read_bytes(), path.stat()
        kind = 2 if name.endswith("gene") else width
        assert len(content) == kind * np.diff(source.rows["indptr"][[25, 42]])[0]
        with open(path, "r+b", buffering=0) as file:
            for place, byte in enumerate(content):
                for mask in (1, 128, 255):
                    os.pwrite(file.fileno(), bytes([byte ^ mask]), place)
                    # As it is where a disk does it: nobody knows of a change.
                    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
                    with pytest.raises(IntegrityError, match=r"00001\.gene: the counts of cell"):
                        source.read(rows)
                os.pwrite(file.fileno(), bytes([byte]), place)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    source.read(rows)


def swap_shards(folder: Path) -> None:
    for name in ("gene", "count"):
        one, other = (folder / "train" / f"0000{number}.{name}" for number in (0, 1))
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second[: len(first)].ljust(len(first), b"\0"))
        other.write_bytes(first[: len(second)].ljust(len(second), b"\0"))


def fill_with_zeros(folder: Path) -> None:
    path = folder / "train" / "00001.count"
    path.write_bytes(bytes(path.stat().st_size))


def lengthen(folder: Path) -> None:
    with open(folder / "train" / "00001.gene", "ab") as file:
        file.write(b"\0\0")


def take_validation(folder: Path) -> None:
    for path in (folder / "validation").iterdir():
        shutil.copy(path, folder / "train" / path.name)


@pytest.mark.parametrize("fault", [swap_shards, fill_with_zeros, lengthen, take_validation])
def test_other_bytes_of_a_pack_are_refused_and_packed_again(copied, fault):
    before, (_, wanted) = read_json(copied.pack), copied.read_packed()
    fault(copied.packed)
    with pytest.raises(IntegrityError, match=r"Run `tabatlas pack` again"):
        copied.read_packed()
    copied.run_pack(shard_cells=50)
    assert read_json(copied.pack) == before
    _, found = copied.read_packed()
    assert torch.equal(found.joinid, wanted.joinid)
    assert torch.equal(found.count, wanted.count)


def test_every_flipped_byte_of_the_manifest_is_refused(copied):
    content = copied.pack.read_bytes()
    for place in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        copied.pack.write_bytes(flipped)
        with pytest.raises((ModelError, InputError), match=str(copied.pack.parent)):
            PackedSource(copied.pack, "train")


def test_a_pack_whose_own_list_of_files_is_damaged_is_packed_again(copied):
    before, path = read_json(copied.pack), copied.packed / pack.CONTENT
    content = path.read_bytes()
    for damaged in (
        content.replace(b"sha256", b"sha257", 1),
        content.replace(b'"n_entries": ', b'"n_entries": 1', 1),
        content[:100],
    ):
        path.write_bytes(damaged)
        assert not pack.is_whole(copied.packed)
    copied.run_pack(shard_cells=50)
    assert read_json(copied.pack) == before


# A file that changes while it is read.


def write_in_place(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x07")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


CHANGES = [write_in_place, replace, truncate, Path.unlink]
READ = ["00001.gene", "00001.count", "indptr.npy", "check.npy", "soma_joinid.npy", "total_n.npy"]


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_under_a_reader_is_an_error(copied, name, change, monkeypatch):
    # One after the other: a file that is cut in the very moment of a read ends the process.
    monkeypatch.setattr(packed, "read_ahead", lambda read, wanted, *rest: map(read, wanted))
    source = PackedSource(copied.pack, "train")
    coming = source.shuffle(source.order(40, seed=0), 0)
    next(coming)
    change(copied.packed / "train" / name)
    with pytest.raises(IntegrityError, match=rf"{name}: (changed while|this file)"):
        list(coming)


LOOKS: dict[str, Callable[[PackedSource], object]] = {
    "keep_labeled": lambda source: source.keep_labeled(),
    "order": lambda source: source.order(10, 0, np.ones(2)),
    "table": lambda source: source.cells.table(),
    "count_levels": lambda source: source.cells.count_levels(names.CELL_TYPE),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_column_that_was_cut_is_an_error_wherever_it_is_looked_at(copied, look):
    source = PackedSource(copied.pack, "train", LABELS)
    truncate(copied.packed / "train" / f"{names.CELL_TYPE}.npy")
    with pytest.raises(IntegrityError, match=r"cell_type\.npy: changed while"):
        look(source)


def test_a_column_that_is_cut_under_weighted_sampling_is_an_error(copied):
    source = PackedSource(copied.pack, "train", LABELS)
    order = source.order(10, 0, np.ones(2))
    truncate(copied.packed / "train" / f"{names.CELL_TYPE}.npy")
    with pytest.raises(IntegrityError, match=r"cell_type\.npy: changed while"):
        list(source.shuffle(order, 0))


def test_a_pack_that_is_packed_anew_under_a_reader_is_an_error(copied):
    source = PackedSource(copied.pack, "train")
    coming = source.shuffle(source.order(40, seed=0), 0)
    next(coming)
    copied.run_pack(shard_cells=20)
    with pytest.raises(IntegrityError, match="this file of the pack is missing"):
        list(coming)
    copied.read_packed()
