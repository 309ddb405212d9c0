"""Files that are damaged, hostile, or of another format."""

import gzip

import h5py
import numpy as np
from desk import Case, Desk

from foreign import claim_size, make_foreign, replace_array, write_foreign
from tabatlas.provenance import digest_file

DAMAGED = ("not a readable h5ad", "fetch it again")


def truncate(desk: Desk, share: float) -> list[str]:
    """The first bytes of a sound file."""
    whole = write_foreign(desk.file).read_bytes()
    return desk.fetch_bytes(whole[: int(share * len(whole))])


def flip_bit(desk: Desk) -> list[str]:
    """A file with another bit than the one whose digest the table names."""
    digest = digest_file(write_foreign(desk.file))
    content = bytearray(desk.file.read_bytes())
    content[len(content) // 2] ^= 1
    return desk.fetch_bytes(content, sha256=digest)


def link_outside(desk: Desk) -> list[str]:
    write_foreign(desk.file)
    with h5py.File(desk.file, "r+") as file:
        file["X/stranger"] = h5py.ExternalLink("/etc/passwd", "/")
    return desk.fetch()


def keep_values_outside(desk: Desk) -> list[str]:
    write_foreign(desk.file)
    (desk.folder / "values").write_bytes(bytes(80))
    with h5py.File(desk.file, "r+") as file:
        file.create_dataset("a", (10,), "f4", external=[(str(desk.folder / "values"), 0, 40)])
    return desk.fetch()


def map_values_outside(desk: Desk) -> list[str]:
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (10,))
    write_foreign(desk.file)
    with h5py.File(desk.file, "r+") as file:
        file.create_virtual_dataset("b", layout)
    return desk.fetch()


def change(desk: Desk, name: str, values: object) -> list[str]:
    """Other values in place of a stored array."""
    write_foreign(desk.file, make_foreign(cell_type=["B cell", "T cell"] * 4))
    replace_array(desk.file, name, values)
    return desk.fetch()


def swap_pointers(desk: Desk) -> list[str]:
    pointers = make_foreign().X.indptr.copy()
    pointers[[2, 3]] = pointers[[3, 2]]
    return change(desk, "X/indptr", pointers)


def claim(desk: Desk, name: str, size: int) -> list[str]:
    """An array that says it has `size` values and holds none."""
    write_foreign(desk.file)
    claim_size(desk.file, name, size)
    return desk.fetch()


def claim_shape(desk: Desk) -> list[str]:
    write_foreign(desk.file)
    with h5py.File(desk.file, "r+") as file:
        file["X"].attrs["shape"] = [10**12, 10**12]
    return desk.fetch()


def empty_heap(desk: Desk) -> None:
    """Zeros where HDF5 keeps text of variable length: it looks there for the next one, forever."""
    content = bytearray(write_foreign(desk.file).read_bytes())
    first = content.index(b"GCOL") + 16
    content[first : first + 16] = bytes(16)
    desk.file.write_bytes(content)


def break_type(desk: Desk) -> None:
    """One bit: the name of obs' index is text of variable length, of a kind that does not exist.

    HDF5 2.0 reads it and crashes.
    """
    content = bytearray(write_foreign(desk.file).read_bytes())
    content[content.index(b"_index\0\0\x19\x01\x01\0\x10") + 9] ^= 2
    desk.file.write_bytes(content)


def crash_fetch(desk: Desk) -> list[str]:
    break_type(desk)
    return desk.fetch()


def crash_screen(desk: Desk) -> list[str]:
    break_type(desk)
    return desk.read_screen()


def lock_fetch(desk: Desk) -> list[str]:
    empty_heap(desk)
    return desk.fetch()


def lock_screen(desk: Desk) -> list[str]:
    empty_heap(desk)
    return desk.read_screen()


def cut_screen(desk: Desk) -> list[str]:
    desk.file.write_bytes(write_foreign(desk.file).read_bytes()[:5000])
    return desk.read_screen()


def nest(desk: Desk) -> list[str]:
    """A group that holds itself."""
    write_foreign(desk.file)
    with h5py.File(desk.file, "r+") as file:
        file["uns/me"] = file["uns"]
    return desk.fetch()


def write_hdf5(desk: Desk, name: str, *groups: str) -> list[str]:
    """An HDF5 file that is no h5ad."""
    with h5py.File(desk.folder / name, "w") as file:
        for group in groups:
            file.create_group(group)
    return desk.fetch(path=str(desk.folder / name))


def make_folder(desk: Desk, *content: str) -> list[str]:
    """A folder in the place of a file."""
    folder = desk.folder / "mine"
    folder.mkdir()
    for name in content:
        (folder / name).touch()
    return desk.fetch(path=str(folder))


def point_to(desk: Desk, target: str) -> list[str]:
    """A symbolic link in the place of a file."""
    desk.file.symlink_to(desk.folder / target)
    return desk.fetch()


def follow_link(desk: Desk) -> list[str]:
    write_foreign(desk.folder / "elsewhere.h5ad")
    return point_to(desk, "elsewhere.h5ad")


def read_eight(desk: Desk) -> None:
    assert np.array_equal(desk.cells.X.toarray(), make_foreign().X.toarray())


CASES = (
    Case("0 bytes", lambda d: d.fetch_bytes(b""), ("mine.h5ad", "0 bytes", "Fetch it again")),
    Case("truncated at half", lambda d: truncate(d, 0.5), ("mine.h5ad", *DAMAGED)),
    Case("truncated by a byte", lambda d: truncate(d, 0.9999), ("mine.h5ad", *DAMAGED)),
    Case(
        "bit flipped, sha256 given",
        flip_bit,
        ("mine.h5ad: sha256 is", "the dataset table says", "fetch it again or correct the table"),
        code=4,
    ),
    Case("not HDF5", lambda d: d.fetch_bytes(b"\0" * 500), ("mine.h5ad", *DAMAGED)),
    Case(
        "no such file",
        lambda d: d.fetch(path="none.h5ad"),
        ("none.h5ad: no such file", "Check `path` in the dataset table"),
    ),
    Case(
        "external link",
        link_outside,
        ("mine.h5ad: `/X/stranger` links to another file (/etc/passwd)", "with its data inside"),
    ),
    Case(
        "values in another file",
        keep_values_outside,
        ("mine.h5ad: `/a` keeps its values elsewhere", "with its data inside"),
    ),
    Case(
        "virtual values of another file",
        map_values_outside,
        ("mine.h5ad: `/b` keeps its values elsewhere", "with its data inside"),
    ),
    Case(
        "index out of range",
        lambda d: change(d, "X/indices", np.full(make_foreign().X.nnz, 12)),
        ("mine.h5ad: `X` is damaged: it holds an index beyond its 12", "Fetch the file again"),
    ),
    Case(
        "pointers not monotone",
        swap_pointers,
        ("mine.h5ad: `X` is damaged: its pointers do not rise from 0", "Fetch the file again"),
    ),
    Case(
        "shape bomb in an attribute",
        claim_shape,
        ("mine.h5ad: `X` is (1000000000000, 1000000000000)", "obs and var are (8, 12)"),
    ),
    Case(
        "shape bomb in an array",
        lambda d: claim(d, "X/data", 10**12),
        ("mine.h5ad: `/X/data` claims 4e+12 bytes, far more", "Fetch it again"),
    ),
    Case(
        "shape bomb in obs",
        lambda d: claim(d, "obs/_index", 10**12),
        ("mine.h5ad: `/obs/_index` claims", "Fetch it again"),
    ),
    Case(
        "damage that locks HDF5",
        lock_fetch,
        ("mine.h5ad: not read within 2 s", "the file is damaged", "Fetch it again"),
        seconds=2,
    ),
    Case(
        "damage that locks HDF5, in a screen",
        lock_screen,
        ("mine.h5ad: not read within 2 s", "the file is damaged", "Fetch it again"),
        seconds=2,
    ),
    Case("bit that crashes HDF5", crash_fetch, ("mine.h5ad", "damaged", "etch it again")),
    Case("bit that crashes HDF5, in a screen", crash_screen, ("mine.h5ad", "damaged", "etch it")),
    Case("truncated screen", cut_screen, ("mine.h5ad", *DAMAGED)),
    Case("group within itself", nest, ("mine.h5ad", *DAMAGED)),
    Case(
        "category out of range",
        lambda d: change(d, "obs/cell_type/codes", np.full(8, 9, dtype=np.int8)),
        ("mine.h5ad", "obs", *DAMAGED),
    ),
    Case(
        "columns of different length",
        lambda d: change(d, "obs/cell_type/codes", np.zeros(2, dtype=np.int8)),
        ("mine.h5ad", *DAMAGED),
    ),
    Case(
        "gzipped h5ad",
        lambda d: d.fetch_bytes(gzip.compress(b"x"), "mine.h5ad.gz"),
        ("mine.h5ad.gz: not an h5ad but compressed by gzip", "Unpack it"),
    ),
    Case(
        "R object",
        lambda d: d.fetch_bytes(gzip.compress(b"X"), "mine.rds"),
        ("mine.rds: not an h5ad but a file of R", "Convert it there"),
    ),
    Case(
        "matrix market",
        lambda d: d.fetch_bytes(b"%%MatrixMarket", "matrix.mtx"),
        ("matrix.mtx: not an h5ad but one of the three files", "Convert their folder"),
    ),
    Case(
        "text table",
        lambda d: d.fetch_bytes(b"cell,A\nBC1,1\n", "mine.csv"),
        ("mine.csv: not an h5ad but a table of text", "Convert it"),
    ),
    Case(
        "web page of a login",
        lambda d: d.fetch_bytes(b"\n<!doctype html><title>Sign in</title>"),
        ("mine.h5ad: not an h5ad but a web page", "Download the file itself"),
    ),
    Case(
        "pointer of Git LFS",
        lambda d: d.fetch_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        ("mine.h5ad: not an h5ad but a pointer of Git LFS", "git lfs pull"),
    ),
    Case(
        "10x HDF5",
        lambda d: write_hdf5(d, "mine.h5", "matrix/barcodes", "matrix/features"),
        ("mine.h5: not an h5ad but a 10x file", "scanpy.read_10x_h5"),
    ),
    Case(
        "loom",
        lambda d: write_hdf5(d, "mine.loom", "row_attrs", "col_attrs"),
        ("mine.loom: not an h5ad but a loom file", "anndata.io.read_loom"),
    ),
    Case(
        "MuData",
        lambda d: write_hdf5(d, "mine.h5mu", "mod/rna", "obs", "var"),
        ("mine.h5mu: not an h5ad but a MuData file", 'mudata.read(old)["rna"]'),
    ),
    Case(
        "h5Seurat",
        lambda d: write_hdf5(d, "mine.h5seurat", "meta.data", "assays"),
        ("mine.h5seurat: not an h5ad but an h5Seurat file", "SeuratDisk::Convert"),
    ),
    Case(
        "other HDF5",
        lambda d: write_hdf5(d, "mine.h5ad", "a"),
        ("mine.h5ad: no `obs` in it", "Check the path"),
    ),
    Case(
        "zarr store",
        lambda d: make_folder(d, ".zgroup"),
        ("mine: not an h5ad but a zarr store", "anndata.io.read_zarr"),
    ),
    Case(
        "10x folder",
        lambda d: make_folder(d, "matrix.mtx.gz", "barcodes.tsv.gz"),
        ("mine: not an h5ad but a folder of a 10x matrix", "scanpy.read_10x_mtx"),
    ),
    Case(
        "folder",
        lambda d: make_folder(d, "mine.h5ad"),
        ("mine: not an h5ad but a folder", "Name the h5ad in it"),
    ),
    Case(
        "broken symbolic link",
        lambda d: point_to(d, "gone.h5ad"),
        ("mine.h5ad: no such file", "Check `path`"),
    ),
    Case("symbolic link", follow_link, code=0, outcome=read_eight),
)
