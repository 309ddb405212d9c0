"""Queries that cannot be annotated, and droplets that must not get a confident label."""

import gzip
from collections.abc import Callable

import anndata as ad
import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp
import tiledbsoma.io
from desk import Case, Desk

from foreign import make_foreign, normalize, replace_array, write_foreign
from tabatlas.genes import load_gene_table

MTX = "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 3\n2 2 1\n"
N_CELLS, N_GENES = 40, 60  # as many genes as the small atlas has


def make_query(n_genes: int = N_GENES) -> ad.AnnData:
    return make_foreign(N_CELLS, n_genes)


def write(change: Callable[[ad.AnnData], ad.AnnData], **flags: object):
    """Annotate a changed query."""

    def arrange(desk: Desk) -> list[str]:
        write_foreign(desk.file, change(make_query()))
        return desk.annotate(**flags)

    return arrange


def write_bytes(content: bytes, name: str = "mine.h5ad"):
    def arrange(desk: Desk) -> list[str]:
        (desk.folder / name).write_bytes(content)
        return desk.annotate(desk.folder / name)

    return arrange


def cut(desk: Desk) -> list[str]:
    write_foreign(desk.file, make_query())
    desk.file.write_bytes(desk.file.read_bytes()[:5000])
    return desk.annotate()


def break_indices(desk: Desk) -> list[str]:
    adata = make_query()
    write_foreign(desk.file, adata)
    replace_array(desk.file, "X/indices", np.full(adata.X.nnz, N_GENES, dtype=np.int32))
    return desk.annotate()


def rename(names: object):
    def change(adata: ad.AnnData) -> ad.AnnData:
        adata.var_names = list(names)
        return adata

    return change


def write_two_genomes(desk: Desk) -> list[str]:
    """HDF5 of Cell Ranger 2 with two genomes."""
    with h5py.File(desk.folder / "mixed.h5", "w") as file:
        for name in ("GRCh38", "mm10"):
            for array in ("barcodes", "genes", "gene_names", "data", "indices", "indptr"):
                file[f"{name}/{array}"] = np.zeros(1, dtype="S1")
    return desk.annotate(desk.folder / "mixed.h5")


def cut_mtx(name: str):
    """The three files of a matrix, of which one ends too soon."""

    def arrange(desk: Desk) -> list[str]:
        texts = {"matrix.mtx": MTX, "features.tsv": "a\tA\nb\tB\n", "barcodes.tsv": "x\ny\n"}
        for one, text in texts.items():
            content = gzip.compress(text.encode())
            (desk.folder / f"{one}.gz").write_bytes(content[:-9] if one == name else content)
        return desk.annotate(desk.folder)

    return arrange


def write_pattern(desk: Desk) -> list[str]:
    (desk.folder / "matrix.mtx").write_text(
        "%%MatrixMarket matrix coordinate pattern general\n2 2 1\n1 1\n"
    )
    (desk.folder / "genes.tsv").write_text("a\tA\nb\tB\n")
    (desk.folder / "barcodes.tsv").write_text("x\ny\n")
    return desk.annotate(desk.folder)


def write_soma(**flags: str):
    def arrange(desk: Desk) -> list[str]:
        uri = str(desk.folder / "soma")
        tiledbsoma.io.from_anndata(uri, make_query(), measurement_name="RNA", X_layer_name="mine")
        return desk.annotate(uri, **flags)

    return arrange


def name_index_as_ours(desk: Desk) -> list[str]:
    adata = make_query()
    adata.obs.index.name = "tabatlas_label"
    write_foreign(desk.file, adata)
    return desk.annotate()


def write_zarr(desk: Desk) -> list[str]:
    (desk.folder / "mine.zarr").mkdir()
    (desk.folder / "mine.zarr" / ".zgroup").touch()
    return desk.annotate(desk.folder / "mine.zarr")


def write_mtx(n_barcodes: int, features: str):
    def arrange(desk: Desk) -> list[str]:
        scipy.io.mmwrite(desk.folder / "matrix.mtx", sp.eye(3, dtype=np.int64))
        (desk.folder / features).write_text("a\tA\nb\tB\nc\tC\n")
        (desk.folder / "barcodes.tsv").write_text("x\n" * n_barcodes)
        return desk.annotate(desk.folder)

    return arrange


def draw_droplets(kind: str):
    """Droplets without a cell: nearly empty, or noise with no likeness to any type."""

    def change(adata: ad.AnnData) -> ad.AnnData:
        rng = np.random.default_rng(0)
        shape = adata.shape
        counts = {
            "empty": np.zeros(shape),
            "nearly empty": rng.random(shape) < 1 / N_GENES,
            "uniform": rng.integers(0, 1000, shape),
            "poisson": rng.poisson(100, shape),
        }[kind]
        if kind == "empty":
            counts[0, 0] = 1  # a file of zeros alone holds no counts
        adata.X = sp.csr_matrix(counts.astype(np.float32))
        return adata

    return change


def assert_no_confident_label(desk: Desk) -> None:
    status = desk.annotated.obs["tabatlas_status"]
    assert (status != "assigned").mean() > 0.9
    assert (desk.annotated.obs["tabatlas_label"][status != "assigned"] == "unknown").all()


def assert_all_cells_came(desk: Desk) -> None:
    assert desk.annotated.obs_names.tolist() == make_query().obs_names.tolist()


def assert_empty_is_low_quality(desk: Desk) -> None:
    assert (desk.annotated.obs["tabatlas_status"] == "low_quality").all()


MOUSE = load_gene_table("Mus musculus").index[:N_GENES]
CASES = (
    Case("no such file", lambda desk: desk.annotate(), ("mine.h5ad: no such file", "Check")),
    Case("0 bytes", write_bytes(b""), ("the file is empty (0 bytes)", "Fetch it again")),
    Case("not HDF5", write_bytes(b"cells" * 99), ("not a readable h5ad", "fetch it again")),
    Case("a table", write_bytes(b"a,b\n1,2\n", "a.csv"), ("a table of text", "Convert it")),
    Case("truncated", cut, ("mine.h5ad: not a readable h5ad", "truncated")),
    Case("indices out of range", break_indices, ("`X` is damaged", "Fetch the file again")),
    Case("log-normalized only", write(normalize), ("X holds fractions", "--layer")),
    Case("a layer that is absent", write(ad.AnnData.copy, layer="no"), ("`no` is not", "has X")),
    Case("no cells", write(lambda adata: adata[:0].copy()), ("holds 0 cells", "are needed")),
    Case("no genes", write(lambda adata: adata[:, :0].copy()), ("0 genes", "both are needed")),
    Case("mouse", write(rename(MOUSE)), ("are those of Mus musculus", "Use a model of that")),
    Case(
        "two organisms",
        write(lambda adata: rename([*adata.var_names[:30], *MOUSE[:30]])(adata)),
        ("genes of two organisms: 30 of Homo sapiens", "Give a file with"),
    ),
    Case("no known gene", write(rename(map(str, range(N_GENES)))), ("only 0 of 60", "numbers")),
    Case("few genes", write(lambda adata: adata[:, :2].copy()), ("only 2 of", "--min-genes")),
    Case("two genomes", write_two_genomes, ("two genomes (GRCh38, mm10)", "Give the")),
    Case(
        "a folder of nothing",
        lambda desk: desk.annotate(desk.folder),
        ("neither a SOMA", "Name the h5ad"),
    ),
    Case("barcodes of another run", write_mtx(2, "genes.tsv"), ("2 barcodes", "three of one run")),
    Case("an mtx alone", write_mtx(3, "other.tsv"), ("no features.tsv", "Add it")),
    *(
        Case(f"{name} truncated", cut_mtx(name), ("not a readable 10x matrix", "Fetch it again"))
        for name in ("matrix.mtx", "features.tsv", "barcodes.tsv")
    ),
    Case("which genes were seen", write_pattern, ("not how often", "Give the counts")),
    Case("zarr", write_zarr, ("a zarr store", "Convert it")),
    Case("a SOMA layer that is absent", write_soma(layer="no"), ("no layer `no`", "has mine")),
    Case("an index named as ours", name_index_as_ours, ("`tabatlas_label`", "Rename the index")),
    Case("a SOMA layer by name", write_soma(layer="mine"), (), 0, outcome=assert_all_cells_came),
    Case(
        "a share beyond 1",
        write(ad.AnnData.copy, **{"min-genes": 2}),
        ("--min-genes 2.0", "between 0 and 1"),
        2,
    ),
    Case(
        "empty droplets", write(draw_droplets("empty")), (), 0, outcome=assert_empty_is_low_quality
    ),
    *(
        Case(f"{kind} droplets", write(draw_droplets(kind)), (), 0, assert_no_confident_label)
        for kind in ("nearly empty", "uniform", "poisson")
    ),
)
