"""Raw counts: what they are, where a file keeps them, how they are read, scaled and written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import read_elem

from tabatlas.errors import CountsError, InputError
from tabatlas.provenance import atomic_path

TARGET_SUM = 1e4
BLOCK = 1 << 22  # stored values looked at at once: 16-32 MB
# Integer matrices that are not the counts of genes (RNA velocity and the like) are never guessed.
COUNT_LAYERS = ("counts", "raw_counts", "raw", "umi", "umis", "UMIs", "count")


@contextlib.contextmanager
def open_h5ad(path: Path) -> Iterator[h5py.File]:
    """Open an h5ad for reading; a file that is none, damaged or linked elsewhere is an error."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check `path` in the dataset table.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Fetch it again.")
    try:
        with h5py.File(path, "r") as file:
            refuse_links(file, path)
            missing = [name for name in ("obs", "var") if name not in file]
            if missing:
                raise InputError(f"{path}: no `{missing[0]}` in it, so it is no h5ad.")
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        # What h5py and anndata raise for truncated and damaged files.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a readable h5ad ({reason}). It is truncated, damaged or of another "
            "format; fetch it again or give its sha256."
        ) from None


def refuse_links(file: h5py.File, path: Path) -> None:
    """Refuse links to other files: they would read what the user never named."""

    def visit(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise InputError(
                    f"{path}: `{group.name}/{name}` links to another file ({link.filename}). "
                    "Save the file with its data inside."
                )
            if isinstance(link, h5py.HardLink) and group.get(name, getclass=True) is h5py.Group:
                visit(group[name])

    visit(file)


def find_counts(file: h5py.File, wanted: str | None) -> str:
    """Where a file keeps its raw counts: "X", "raw/X" or "layers/…".

    `wanted` is the place the user named, or None to look. Raises `CountsError` with what each
    place holds instead.
    """
    if wanted is not None:
        place = wanted if wanted in ("X", "raw/X") else f"layers/{wanted.removeprefix('layers/')}"
        if place not in file:
            raise CountsError(f"`counts: {wanted}` is not in the file; it has {list_places(file)}.")
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
        "Give a file with raw counts, or name their place in `counts`."
    )


def list_places(file: h5py.File) -> str:
    """The matrices of an h5ad, as text."""
    layers = [f"layers/{name}" for name in file.get("layers", {})]
    return ", ".join([place for place in ("X", "raw/X") if place in file] + layers) or "no matrix"


def judge_values(matrix: h5py.Group | h5py.Dataset) -> str:
    """What keeps a stored matrix from being raw counts, or "" if nothing does."""
    for values in iterate_values(matrix):
        problem = judge_block(values)
        if problem:
            return problem
    return ""


def iterate_values(matrix: h5py.Group | h5py.Dataset) -> Iterator[np.ndarray]:
    """The stored values of a sparse or dense matrix, block by block, flat."""
    if isinstance(matrix, h5py.Group):
        data = matrix["data"]
        for start in range(0, data.shape[0], BLOCK):
            yield data[start : start + BLOCK]
    else:
        rows = max(1, BLOCK // max(1, matrix.shape[1]))
        for start in range(0, matrix.shape[0], rows):
            yield matrix[start : start + rows].ravel()


def judge_block(values: np.ndarray) -> str:
    """What keeps an array of values from being raw counts, or "" if nothing does."""
    if values.dtype.kind not in "iufb":
        return f"holds {values.dtype}, not numbers"
    if not np.isfinite(values).all():
        return "holds NaN or infinite values"
    if values.size and values.min() < 0:
        return f"holds negative values ({values.min():g}); it looks scaled"
    fractional = values[values != np.rint(values)]
    if fractional.size:
        kind = "log-normalised" if values.max() < 20 else "normalised"
        return f"holds fractions ({fractional[0]:.4g}); it looks {kind}"
    if values.size and values.max() > np.iinfo(np.int32).max:
        return f"holds {values.max():g}, above the range of a count (int32)"
    return ""


def check_counts(matrix: sp.csr_matrix, place: str) -> None:
    """Raise `CountsError` unless every value is a finite, non-negative integer within int32."""
    problem = judge_block(matrix.data)
    if problem:
        raise CountsError(f"{place}: {problem}. Raw counts are needed.")


def read_matrix(file: h5py.File, place: str, n_genes: int) -> sp.csr_matrix:
    """Read a matrix of the file as canonical CSR float32, its structure verified.

    Out-of-range column indices load silently otherwise and give other cells' values.
    """
    stored = file[place]
    shape = (index_length(file["obs"]), n_genes)
    stated = tuple(stored.attrs["shape"]) if isinstance(stored, h5py.Group) else stored.shape
    if tuple(int(size) for size in stated) != shape:
        raise InputError(f"`{place}` is {stated}, but obs and var are {shape}: the file is damaged.")
    if isinstance(stored, h5py.Group):
        by_row = stored.attrs.get("encoding-type") != "csc_matrix"
        check_compressed(stored, place, *(shape if by_row else shape[::-1]))
    matrix = sp.csr_matrix(read_elem(stored), dtype=np.float32)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def check_compressed(stored: h5py.Group, place: str, n_major: int, n_minor: int) -> None:
    """Verify the invariants of a stored CSR (or, with the axes turned, CSC) matrix."""
    starts, indices = stored["indptr"][:], stored["indices"]
    problem = ""
    if starts.shape != (n_major + 1,) or starts[0] != 0 or (np.diff(starts) < 0).any():
        problem = "its row pointers are not monotone"
    elif starts[-1] != indices.shape[0] or starts[-1] != stored["data"].shape[0]:
        problem = "its values, indices and row pointers differ in length"
    else:
        for start in range(0, indices.shape[0], BLOCK):
            block = indices[start : start + BLOCK]
            if block.min() < 0 or block.max() >= n_minor:
                problem = f"it holds an index beyond its {n_minor} columns"
    if problem:
        raise InputError(f"`{place}` is damaged: {problem}. Fetch the file again.")


def index_length(frame: h5py.Group) -> int:
    """Number of rows of a stored data frame."""
    return int(frame[frame.attrs["_index"]].shape[0])


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
        # Level 1: half the size for a tenth of the default level's time.
        adata.write_h5ad(temporary, compression="gzip", compression_opts=1)


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
