"""Cells and genes: too few, repeated, of other names or organisms."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from desk import Case, Desk

from foreign import HUMAN, human_genes, make_foreign, replace_array, write_foreign
from tabatlas import names
from tabatlas.genes import load_gene_table

MOUSE = "Mus musculus"


def name_genes(*own: str) -> ad.AnnData:
    """A file whose genes have these names; those that are not given are numbered."""
    adata = make_foreign()
    adata.var_names = [*own, *(f"x{number}" for number in range(len(own), 12))]
    return adata


def symbols(organism: str = HUMAN) -> list[str]:
    """Twelve symbols of protein-coding genes."""
    table = load_gene_table(organism)
    return table[table[names.FEATURE_TYPE] == names.PROTEIN_CODING][names.FEATURE_NAME].tolist()[
        :12
    ]


def mix_organisms(prefixes: tuple[str, str] = ("", "")) -> ad.AnnData:
    """Six genes of each organism."""
    human, mouse = human_genes(6).index, load_gene_table(MOUSE).index[:6]
    return name_genes(*(prefixes[0] + human), *(prefixes[1] + mouse))


def repeat_cells() -> ad.AnnData:
    adata = make_foreign()
    adata.obs_names = ["same"] * 8
    return adata


def add_antibodies() -> ad.AnnData:
    adata = make_foreign()
    adata.var[names.FEATURE_TYPES] = ["Gene Expression"] * 10 + ["Antibody Capture"] * 2
    return adata


def keep_antibodies() -> ad.AnnData:
    adata = make_foreign()
    adata.var[names.FEATURE_TYPES] = "Antibody Capture"
    return adata


def repeat_gene(desk: Desk) -> list[str]:
    """One gene in two columns; its counts are added up where genes are aligned."""
    own = list(human_genes(12).index)
    return desk.normalize(desk.fetch_before(name_genes(own[2], *own[1:])))


def fetch_two(desk: Desk) -> list[str]:
    """Two datasets with equal obs names."""
    desk.fetch_before(make_foreign(), dataset_id="other")
    return desk.fetch(make_foreign())


def store_bytes(desk: Desk) -> list[str]:
    """Gene names as fixed bytes, as old tools write them."""
    write_foreign(desk.file)
    own = [name.encode() for name in human_genes(12).index]
    replace_array(desk.file, "var/_index", np.array(own))
    with h5py.File(desk.file, "r+") as file:
        for name in ("encoding-type", "encoding-version"):
            del file["var/_index"].attrs[name]
    return desk.fetch()


def normalize_on(desk: Desk, *genes: str) -> list[str]:
    """An atlas of these genes."""
    (desk.folder / "genes.txt").write_text("\n".join(genes))
    source = desk.fetch_before(make_foreign())
    return desk.normalize(source, genes=str(desk.folder / "genes.txt"))


def map_all(desk: Desk) -> None:
    assert desk.cells.var[names.FEATURE_ID].tolist() == human_genes(12).index.tolist()


def keep_one(desk: Desk) -> None:
    kept = desk.cells
    assert kept.n_obs == 1
    assert kept.X.sum() > 0


def read_one_gene(desk: Desk) -> None:
    assert np.array_equal(desk.cells.X.toarray(), make_foreign(8, 1).X.toarray())


def leave_out_antibodies(desk: Desk) -> None:
    assert (desk.cells.n_vars, desk.facts["n_other_features"]) == (10, 2)
    assert np.array_equal(desk.cells.X.toarray(), make_foreign().X[:, :10].toarray())


def sum_repeated(desk: Desk) -> None:
    before, after = make_foreign().X.toarray(), desk.cells
    merged = after[:, human_genes(12).index[2]].X.toarray().ravel()
    assert np.array_equal(merged, before[:, 0] + before[:, 2])
    assert desk.facts["total"] == before.sum()
    assert desk.facts["n_measured"] == 11


def name_cells_by_dataset(desk: Desk) -> None:
    other = ad.read_h5ad(desk.folder / "before" / "out" / "cells.h5ad")
    assert desk.cells.obs_names.tolist() == [f"mine:BC{n}" for n in range(8)]
    assert not set(other.obs_names) & set(desk.cells.obs_names)


def keep_transgene(desk: Desk) -> None:
    assert (desk.facts["n_mapped"], desk.facts["n_unmapped"]) == (11, 1)
    assert desk.cells.var_names[-1] == "EGFP"


VERSIONED = pd.Index([f"{name}.7" for name in human_genes(12).index])
CASES = (
    Case(
        "0 cells",
        lambda d: d.fetch(make_foreign()[:0].copy()),
        ("mine.h5ad: it holds 0 cells", "and 12 genes; both are needed"),
    ),
    Case(
        "0 genes",
        lambda d: d.fetch(make_foreign()[:, :0].copy()),
        ("mine.h5ad: it holds 8 cells", "and 0 genes; both are needed"),
    ),
    Case("1 cell", lambda d: d.fetch(make_foreign(1)), (), 0, keep_one),
    Case("1 cell through qc", lambda d: d.qc(d.fetch_before(make_foreign(1))), (), 0, keep_one),
    Case(
        "1 cell on the atlas's genes",
        lambda d: d.normalize(d.fetch_before(make_foreign(1))),
        (),
        0,
        keep_one,
    ),
    Case("1 gene", lambda d: d.fetch(make_foreign(8, 1)), (), 0, read_one_gene),
    Case(
        "repeated obs name",
        lambda d: d.fetch(repeat_cells()),
        ("mine: obs name 'same' stands there twice", "Make obs names unique"),
    ),
    Case("equal obs names in two files", fetch_two, (), 0, name_cells_by_dataset),
    Case("repeated gene", repeat_gene, (), 0, sum_repeated),
    Case("versioned Ensembl", lambda d: d.fetch(name_genes(*VERSIONED)), (), 0, map_all),
    Case("symbols", lambda d: d.fetch(name_genes(*symbols())), (), 0, map_all),
    Case("names as bytes", store_bytes, (), 0, map_all),
    Case(
        "a transgene",
        lambda d: d.fetch(name_genes(*human_genes(11).index, "EGFP")),
        (),
        0,
        keep_transgene,
    ),
    Case(
        "symbols in lower case",
        lambda d: d.fetch(name_genes(*map(str.lower, symbols()))),
        (
            "mine: only 0 of 12 genes (first: or4f5",
            "12 would be known (`or4f5` → `OR4F5`)",
            "write them so",
        ),
    ),
    Case(
        "symbols capitalized",
        lambda d: d.fetch(name_genes(*map(str.capitalize, symbols()))),
        (
            "mine: only 0 of 12 genes (first: Or4f5",
            "12 would be known (`Or4f5` → `OR4F5`)",
            "write them so",
        ),
    ),
    Case(
        "numeric ids",
        lambda d: d.fetch(name_genes(*map(str, range(100, 112)))),
        (
            "mine: only 0 of 12 genes (first: 100, 101, 102)",
            "such as ids of Entrez",
            "name their column in `gene_id`",
        ),
    ),
    Case(
        "no overlap with any organism",
        lambda d: d.fetch(name_genes(*(f"AT1G{n}" for n in range(12)))),
        (
            "mine: only 0 of 12 genes (first: AT1G0",
            "0 of Homo sapiens, 0 of Mus musculus",
            "Check `gene_id` and `organism`",
        ),
    ),
    Case(
        "no overlap with the atlas",
        lambda d: normalize_on(d, "BRCA2", "GAPDH"),
        (
            "cells.h5ad: none of its 12 genes",
            "is one of the 2 of the atlas (first: ENSG00000139618)",
            "Check `organism`",
        ),
    ),
    Case(
        "wrong organism, Ensembl",
        lambda d: d.fetch(make_foreign(), organism=MOUSE),
        (
            "mine: only 0 of 12 genes (first: ENSG",
            "12 of Homo sapiens, 0 of Mus",
            "Set `organism: Homo sapiens`",
        ),
    ),
    Case(
        "wrong organism, symbols",
        lambda d: d.fetch(name_genes(*symbols(MOUSE))),
        ("mine: only 0 of 12 genes", "12 of Mus musculus", "Set `organism: Mus musculus`"),
    ),
    Case(
        "two organisms",
        lambda d: d.fetch(mix_organisms()),
        (
            "mine: genes of two organisms: 6 of Homo sapiens and 6 of Mus musculus",
            "ENSMUSG",
            "Give a file with the cells and genes of one",
        ),
    ),
    Case(
        "two organisms, named by genome",
        lambda d: d.fetch(mix_organisms(("GRCh38_", "mm10___"))),
        (
            "mine: only 0 of 12 genes (first: GRCh38_ENSG",
            "6 with GRCh38, 6 with mm10",
            "keep the cells and genes of one organism",
        ),
    ),
    Case("antibodies mixed in", lambda d: d.fetch(add_antibodies()), (), 0, leave_out_antibodies),
    Case(
        "antibodies alone",
        lambda d: d.fetch(keep_antibodies()),
        (
            "mine: no feature is of the type `Gene Expression`",
            "Antibody Capture",
            "Give the file with the genes",
        ),
    ),
    Case(
        "column of genes that is absent",
        lambda d: d.fetch(make_foreign(), gene_id="nope"),
        ("mine: `gene_id: nope` is no column of var", "it has none", "`index`"),
    ),
    Case(
        "gene list with a stranger",
        lambda d: normalize_on(d, "BRCA2", "GFP"),
        ("genes.txt: `GFP` is no gene of Homo sapiens", "Use current GENCODE ids"),
    ),
    Case(
        "gene list that is absent",
        lambda d: d.normalize(d.fetch_before(make_foreign()), genes="none.txt"),
        ("none.txt: not a readable gene list", "No such file"),
        2,
    ),
)
