"""Raw counts: what they are, where a file keeps them, how they are read, scaled and written."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata._io.specs.registry import IORegistryError  # anndata exports it nowhere
from anndata.io import read_elem

from tabatlas.blocks import BLOCK, Stored, iterate_blocks, rows_of_block
from tabatlas.errors import CountsError, InputError, TabatlasError, show, show_some
from tabatlas.formats import recognize_file, recognize_hdf5
from tabatlas.provenance import atomic_path

TARGET_SUM = 1e4
MAX_COUNT = 1 << 24  # float32 holds every integer up to here
# Level 1: half the size for a tenth of the default level's time.
COMPRESSION = {"compression": "gzip", "compression_opts": 1}
# Compression of real data stays far below this ratio; small arrays may claim what they like.
PLAUSIBLE_RATIO, PLAUSIBLE_BYTES = 100_000, 1 << 28
# What h5py and anndata raise for damaged files.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    IORegistryError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Integer matrices that are not the counts of genes (RNA velocity and the like) are never guessed.
COUNT_LAYERS = ("counts", "raw_counts", "raw", "umi", "umis", "UMIs", "count")


@contextlib.contextmanager
def open_h5ad(path: Path, source: str | None = None, mode: str = "r") -> Iterator[h5py.File]:
    """`open_hdf5` for an h5ad: what has no obs and var is refused too."""
    with open_hdf5(path, source, mode) as file:
        check_frames(file)
        yield file


@contextlib.contextmanager
def open_hdf5(path: Path, source: str | None = None, mode: str = "r") -> Iterator[h5py.File]:
    """Open an HDF5 file; every error raised meanwhile names the file, or its `source`.

    Raises `InputError` for a file that is none, damaged, or keeps data in other files.
    """
    path, place = Path(path), source or str(path)
    if not path.is_file():
        raise InputError(f"{place}: no such file. Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{place}: the file is empty (0 bytes). Fetch it again.")
    try:
        with h5py.File(path, mode) as file:
            check_group(file)
            yield file
    except TabatlasError as error:
        named = str(error).startswith(place)
        raise error if named else type(error)(f"{place}: {error}") from None
    except DAMAGE as error:
        raise explain_damage(path, place, error, mode) from error


def explain_damage(path: Path, place: str, error: Exception, mode: str) -> InputError:
    """The error that a library's own one means: another format, else damage and its place."""
    known = "" if h5py.is_hdf5(path) else recognize_file(path, place)
    if known:
        return InputError(f"{place}: not an h5ad but {known}")
    notes = getattr(error, "__notes__", [])  # anndata's: the array that it was reading
    reason = " ".join(" ".join([str(error) or type(error).__name__, *notes]).split())
    if mode != "r":
        return InputError(
            f"{place}: its copy cannot be written to ({reason[:300]}). Check the space for it."
        )
    return InputError(
        f"{place}: not a readable h5ad ({reason[:300]}). It is truncated, damaged or of another "
        "format; fetch it again."
    )


def check_group(group: h5py.Group) -> None:
    """Refuse data in other files, which the user never named, and claims of endless data."""
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"`{group.name}/{name}` links to another file ({link.filename}). "
                "Save the file with its data inside."
            )
        if not isinstance(link, h5py.HardLink):
            continue  # it leads to something that has its own hard link
        item = group[name]
        if isinstance(item, h5py.Group):
            check_group(item)
        elif isinstance(item, h5py.Dataset):
            check_dataset(item)


def check_dataset(dataset: h5py.Dataset) -> None:
    """Refuse an array whose values lie in another file or nowhere."""
    if dataset.is_virtual or dataset.external:
        raise InputError(
            f"`{dataset.name}` keeps its values elsewhere. Save the file with its data inside."
        )
    claimed = (dataset.size or 0) * dataset.dtype.itemsize
    if claimed > PLAUSIBLE_BYTES and claimed > PLAUSIBLE_RATIO * dataset.id.get_storage_size():
        raise InputError(
            f"`{dataset.name}` claims {claimed:.3g} bytes, far more than the file can hold. "
            "Fetch it again."
        )


def check_frames(file: h5py.File) -> None:
    """Refuse another format, a file without obs and var, and one of anndata before 0.7."""
    other = recognize_hdf5(file)
    if other:
        raise InputError(f"not an h5ad but {other}")
    for name in ("obs", "var"):
        if name not in file:
            raise InputError(f"no `{name}` in it, so it is no h5ad. Check the path.")
        if isinstance(file[name], h5py.Dataset):
            raise InputError(
                "written by anndata before 0.7. Convert it: "
                "`anndata.read_h5ad(old).write_h5ad(new)`."
            )


def check_size(file: h5py.File) -> tuple[int, int]:
    """Number of cells and genes. Raises `InputError` where there are none of either."""
    n_cells, n_genes = index_length(file["obs"]), index_length(file["var"])
    if not (n_cells and n_genes):
        raise InputError(f"it holds {n_cells} cells and {n_genes} genes; both are needed.")
    return n_cells, n_genes


def find_counts(file: Mapping[str, Any], wanted: str | None) -> str:
    """Where a file keeps its raw counts: "X", "raw/X" or "layers/…".

    `file` is an open h5ad, or what `list_matrices` gives of an AnnData. `wanted` is the place that
    the user named, or None to look. Raises `CountsError` with what each place holds instead.
    """
    if wanted is not None:
        place = wanted if wanted in ("X", "raw/X") else f"layers/{wanted.removeprefix('layers/')}"
        if place not in file:
            raise CountsError(f"`{show(wanted)}` is not in the file; it has {list_places(file)}.")
        candidates = [place]
    else:
        named = [f"layers/{name}" for name in COUNT_LAYERS]
        candidates = [place for place in [*named, "raw/X", "X"] if place in file]
    verdicts = {}
    for place in candidates:
        verdicts[place] = judge_values(file[place])
        if verdicts[place] == "":
            return place
    found = "; ".join(f"{place} {verdict}" for place, verdict in verdicts.items()) or "no matrix"
    raise CountsError(
        f"no raw counts: {found}. The file has {list_places(file)}. "
        "Give a file with raw counts, or name their place: `counts` of a dataset, `--layer` of a "
        "query."
    )


def list_matrices(adata: ad.AnnData) -> dict[str, Any]:
    """The matrices of an AnnData under the names that they have in a file."""
    layers = {f"layers/{name}": values for name, values in adata.layers.items()}
    own = {} if adata.X is None else {"X": adata.X}
    raw = {} if adata.raw is None else {"raw/X": adata.raw.X}
    # Of a backed AnnData the matrix in its file.
    matrices = {place: getattr(one, "group", one) for place, one in (own | raw | layers).items()}
    return matrices | {"layers": adata.layers}


def list_places(file: Mapping[str, Any]) -> str:
    """The matrices of an h5ad, as text."""
    layers = [f"layers/{name}" for name in file.get("layers", {})]
    places = [place for place in ("X", "raw/X") if place in file] + layers
    return show_some(places) if places else "no matrix"


def judge_values(matrix: Stored) -> str:
    """What keeps a stored matrix from being raw counts, or "" if nothing does."""
    if (isinstance(matrix, h5py.Group) and "data" not in matrix) or (
        isinstance(matrix, h5py.Dataset) and matrix.ndim != 2
    ):
        return "is no matrix"
    empty = True
    for values in iterate_values(matrix):
        problem = judge_block(values)
        if problem:
            return problem
        empty = empty and not values.any()
    return "holds nothing but zeros" if empty else ""


def iterate_values(matrix: Stored) -> Iterator[np.ndarray]:
    """The stored values of a sparse or dense matrix, block by block, flat."""
    if isinstance(matrix, h5py.Group) or sp.issparse(matrix):
        data = matrix["data"] if isinstance(matrix, h5py.Group) else matrix.data
        for start in range(0, data.shape[0], BLOCK):
            yield data[start : start + BLOCK]
    else:
        rows = rows_of_block(matrix)
        for start in range(0, matrix.shape[0], rows):
            yield matrix[start : start + rows].ravel()


def judge_block(values: np.ndarray) -> str:
    """What keeps an array of values from being raw counts, or "" if nothing does."""
    if values.dtype.kind == "b":
        return "holds true and false: which genes were seen, not how often"
    if values.dtype.kind not in "iuf":
        return f"holds {values.dtype}, not numbers"
    if not np.isfinite(values).all():
        return "holds NaN or infinite values"
    if values.size and values.min() < 0:
        return f"holds negative values ({values.min():g}); it looks scaled"
    fractional = values[values != np.rint(values)]
    if fractional.size:
        kind = "log-normalised" if values.max() < 20 else "normalised"
        return f"holds fractions ({fractional[0]:.4g}); it looks {kind}"
    if values.size and float(values.max()) > MAX_COUNT:
        return f"holds {values.max()}, above {MAX_COUNT}, the largest count that stays exact"
    return ""


def check_counts(matrix: sp.csr_matrix, place: str) -> None:
    """Raise `CountsError` unless every value is an integer from 0 to `MAX_COUNT`."""
    problem = judge_block(matrix.data)
    if problem:
        raise CountsError(f"{place}: {problem}. Raw counts are needed.")


def read_matrix(file: h5py.File, place: str, n_genes: int) -> sp.csr_matrix:
    """Read a matrix of the file as canonical CSR float32, its structure verified."""
    check_structure(file, place, n_genes)
    matrix = sp.vstack([block for _, block in iterate_blocks(file[place])], format="csr")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def check_structure(file: h5py.File, place: str, n_genes: int) -> None:
    """Raise `InputError` where a matrix does not fit obs and `n_genes`, or is damaged.

    Indices that are out of range load silently otherwise and give other cells' values.
    """
    stored = file[place]
    shape = (index_length(file["obs"]), n_genes)
    sparse = isinstance(stored, h5py.Group)
    stated = tuple(int(size) for size in (stored.attrs["shape"] if sparse else stored.shape))
    if stated != shape:
        raise InputError(f"`{place}` is {stated}, but obs and var are {shape}: it is damaged.")
    if sparse:
        check_compressed(stored, place, shape)


def check_compressed(stored: h5py.Group, place: str, shape: tuple[int, int]) -> None:
    """Raise `InputError` where a stored CSR or CSC matrix breaks an invariant of its format."""
    axes = {"csr_matrix": shape, "csc_matrix": shape[::-1]}
    encoding = stored.attrs["encoding-type"]
    if encoding not in axes:
        raise InputError(f"`{place}` is a {encoding}, not a matrix. Name another place.")
    problem = find_damage(stored, *axes[encoding])
    if problem:
        raise InputError(f"`{place}` is damaged: {problem}. Fetch the file again.")


def find_damage(stored: h5py.Group, n_major: int, n_minor: int) -> str:
    """What breaks the format of compressed rows (n_major) or columns, or "" if nothing does."""
    data, indices, pointers = stored["data"], stored["indices"], stored["indptr"]
    if {data.ndim, indices.ndim, pointers.ndim} != {1} or data.shape != indices.shape:
        return f"its values {data.shape} and indices {indices.shape} differ in length"
    if len(pointers) != n_major + 1:  # before they are read: a lie may claim any number
        return f"it has {len(pointers)} pointers for {n_major} rows or columns"
    if indices.dtype.kind not in "iu" or pointers.dtype.kind not in "iu":
        return "its indices are not integers"
    starts = pointers[:].astype(np.int64)
    if starts[0] != 0 or starts[-1] != len(indices) or (np.diff(starts) < 0).any():
        return f"its pointers do not rise from 0 to its {len(indices)} values"
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK]
        if block.min() < 0 or block.max() >= n_minor:
            return f"it holds an index beyond its {n_minor} columns or rows"
    return ""


def read_frame(file: h5py.File, name: str) -> pd.DataFrame:
    """Read obs or a var. Raises `InputError` where its columns are no plain ones."""
    frame = read_elem(file[name])
    for column in frame.columns[frame.columns.duplicated()][:1]:
        raise InputError(f"`{name}` has the column `{show(column)}` twice. Keep one of them.")
    for column in [one for one, dtype in frame.dtypes.items() if dtype.kind == "V"][:1]:
        raise InputError(f"column `{show(column)}` of `{name}` holds records. Split it up.")
    return frame


def index_length(frame: h5py.Group) -> int:
    """Number of rows of a stored data frame."""
    index = frame[frame.attrs["_index"]]
    # A group holds texts of which some may be missing.
    return int((index["values"] if isinstance(index, h5py.Group) else index).shape[0])


def read_counts(path: Path) -> ad.AnnData:
    """Read an h5ad that a stage of ours wrote: counts in X."""
    with open_h5ad(path) as file:
        var = read_elem(file["var"])
        return ad.AnnData(
            X=read_matrix(file, "X", len(var)),
            obs=read_elem(file["obs"]),
            var=var,
            uns=read_elem(file["uns"]) if "uns" in file else {},
        )


def write_h5ad(adata: ad.AnnData, path: Path) -> None:
    """Write an h5ad atomically; equal content gives equal bytes."""
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, **COMPRESSION)


def size_factors(total_n: np.ndarray) -> np.ndarray:
    """Total counts / 10⁴ per cell; 1 for an empty cell, as `scanpy.pp.normalize_total` does."""
    return np.where(total_n > 0, total_n / TARGET_SUM, 1.0)


def log1p_cp10k(counts: sp.csr_matrix, total_n: np.ndarray) -> sp.csr_matrix:
    """log(1 + counts per 10⁴) as CSR float32, scaled by `total_n` (n,), not by the row's sum.

    Equal to `scanpy.pp.normalize_total(target_sum=1e4)` then `scanpy.pp.log1p` on all genes.
    """
    factor = np.repeat(size_factors(total_n).astype(np.float32), np.diff(counts.indptr))
    data = np.log1p(counts.data.astype(np.float32) / factor)
    return sp.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)
