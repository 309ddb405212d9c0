"""Files that are no h5ad: what each of them is, and how an h5ad is made of it."""

from pathlib import Path

import h5py

TEN_X = "`scanpy.read_10x_mtx(folder).write_h5ad(new)`."
# What lies in a folder → what the folder is.
FOLDERS = (
    (".zgroup", "a zarr store. Convert it: `anndata.io.read_zarr(old).write_h5ad(new)`."),
    ("zarr.json", "a zarr store. Convert it: `anndata.io.read_zarr(old).write_h5ad(new)`."),
    ("matrix.mtx", f"a folder of a 10x matrix. Convert it: {TEN_X}"),
    ("matrix.mtx.gz", f"a folder of a 10x matrix. Convert it: {TEN_X}"),
)
# Endings of names, before signatures: most of these files are compressed as well.
ENDINGS = (
    ((".mtx", ".mtx.gz"), f"one of the three files of a 10x matrix. Convert their folder: {TEN_X}"),
    (
        (".rds", ".rdata", ".rda"),
        "a file of R. Convert it there: `zellkonverter::writeH5AD(sce, new)`, a Seurat object by "
        "`as.SingleCellExperiment` before.",
    ),
    (
        (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
        "a table of text. Convert it: `anndata.io.read_csv(old).write_h5ad(new)`, cells in rows.",
    ),
)
SIGNATURES = (
    (b"\x1f\x8b", "compressed by gzip. Unpack it: `gunzip`."),
    (b"PK\x03\x04", "a zip archive. Unpack it: `unzip`."),
    (b"BZh", "compressed by bzip2. Unpack it: `bunzip2`."),
    (b"\xfd7zXZ", "compressed by xz. Unpack it: `unxz`."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd. Unpack it: `unzstd`."),
    (b"version https://git-lfs", "a pointer of Git LFS. Get the file: `git lfs pull`."),
    (b"<", "a web page. Download the file itself; it may need a login."),
)
# Groups that only this kind of HDF5 file has → what it is.
GROUPS = (
    ("mod", 'a MuData file. Give its RNA: `mudata.read(old)["rna"].write_h5ad(new)`.'),
    (
        "matrix/barcodes",
        "a 10x file. Convert it: `scanpy.read_10x_h5(old).write_h5ad(new)`.",
    ),
    ("row_attrs", "a loom file. Convert it: `anndata.io.read_loom(old).write_h5ad(new)`."),
    (
        "meta.data",
        'an h5Seurat file. Convert it in R: `SeuratDisk::Convert(old, dest = "h5ad")`, and see '
        "that it keeps the counts.",
    ),
)


def describe_folder(folder: Path) -> str:
    """What a folder in the place of a file is, and the next step."""
    for name, meaning in FOLDERS:
        if (folder / name).exists():
            return meaning
    return "a folder. Name the h5ad in it."


def recognize_file(path: Path, name: str) -> str:
    """What a file that is no HDF5 is, and the next step; "" where it is not known.

    `name` is what the user calls it: a downloaded file has another one here.
    """
    for endings, meaning in ENDINGS:
        if name.lower().endswith(endings):
            return meaning
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    return next((meaning for signature, meaning in SIGNATURES if start.startswith(signature)), "")


def recognize_hdf5(file: h5py.File) -> str:
    """What an HDF5 file that is no h5ad is, and the next step; "" where it is not known."""
    return next((meaning for group, meaning in GROUPS if group in file), "")
