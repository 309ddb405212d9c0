import numpy as np
import pandas as pd
import pytest

from foreign import HUMAN, human_genes
from tabatlas import names
from tabatlas.errors import GeneMismatchError, InputError
from tabatlas.fetch.genes import find_expression, map_genes
from tabatlas.genes import GeneMapping, load_gene_table

MOUSE = "Mus musculus"


def map_file(
    var: pd.DataFrame, least: float, organism: str = HUMAN, gene_id: str | None = None
) -> tuple[pd.DataFrame, GeneMapping]:
    return map_genes(var, "d", organism, gene_id, least)


@pytest.fixture
def table() -> pd.DataFrame:
    """Four human genes."""
    return human_genes(4)


def test_gene_names_are_found_in_the_index(table: pd.DataFrame) -> None:
    genes, mapping = map_file(pd.DataFrame(index=table.index + ".7"), 0.3)
    assert mapping.kind == "ensembl"
    assert genes[names.FEATURE_ID].tolist() == table.index.tolist()
    assert genes[names.FEATURE_NAME].tolist() == table[names.FEATURE_NAME].tolist()
    assert set(genes[names.FEATURE_TYPE]) == {names.PROTEIN_CODING}
    assert genes.index.tolist() == (table.index + ".7").tolist()


def test_column_that_finds_most_genes_is_used(table: pd.DataFrame) -> None:
    symbols = table[names.FEATURE_NAME].to_numpy()
    var = pd.DataFrame(
        {
            "n_cells": [1, 2, 3, 4],
            "symbol": pd.Categorical([*symbols[:3], "GFP"]),
            "ensembl": table.index,
        },
        index=["a", "b", "c", "d"],
    )
    assert map_file(var, 0.3)[1].kind == "ensembl"
    assert map_file(var, 0.3, gene_id="symbol")[1].n_mapped == 3
    with pytest.raises(GeneMismatchError):
        map_file(var, 0.3, gene_id="index")


def test_named_column_that_is_absent_is_an_error(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="d: `gene_id: nope` is no column of var; it has none"):
        map_file(pd.DataFrame(index=table.index), 0.3, gene_id="nope")


def test_unmapped_gene_keeps_its_own_name(table: pd.DataFrame) -> None:
    genes, mapping = map_file(pd.DataFrame(index=[*table.index, "GFP"]), 0.3)
    assert mapping.n_mapped == 4
    assert genes.loc["GFP"].tolist() == ["", "GFP", ""]


def test_genes_that_stand_there_twice_keep_names_of_their_own(table: pd.DataFrame) -> None:
    first = table.index[0]
    genes, _ = map_file(pd.DataFrame(index=[first, first, f"{first}.2"]), 0.3)
    assert genes.index.tolist() == [first, f"{first}#1", f"{first}.2"]
    assert genes[names.FEATURE_ID].tolist() == [first] * 3


@pytest.mark.parametrize(
    ("own", "organism", "step"),
    [
        (["100", "200.0", "3"], HUMAN, "numbers, such as ids of Entrez: give Ensembl ids"),
        (["Actb", "Cd4", "Cd8a"], HUMAN, "Set `organism: Mus musculus`"),
        (["ACTB", "CD4", "CD8A"], MOUSE, "Set `organism: Homo sapiens`"),
        (["ENSMUSG00000041147.3"], HUMAN, "Set `organism: Mus musculus`"),
        (["actb", "cd4", "gfp"], HUMAN, "2 would be known (`actb` → `ACTB`)"),
        (["actb", "cd4", "gfp"], MOUSE, "2 would be known (`actb` → `Actb`)"),
        (["Actb", "Cd4", "Or4f5"], HUMAN, "3 would be known (`Actb` → `ACTB`)"),
        (["ensg00000139618"], HUMAN, "hold an Ensembl id: write it alone (ENSG00000139618)"),
        (["BRCA2-ENSG00000139618.3"], HUMAN, "write it alone (ENSG00000139618)"),
        (["GRCh38_BRCA2", "mm10___Brca2"], HUMAN, "(1 with GRCh38, 1 with mm10): keep the"),
        (["AT1G01010", "AT1G01020"], HUMAN, "Check `gene_id` and `organism`"),
        (["GFP"], HUMAN, "Check `gene_id` and `organism`"),
    ],
)
def test_names_that_are_no_genes_of_the_organism_lead_to_the_next_step(
    own: list[str], organism: str, step: str
) -> None:
    with pytest.raises(GeneMismatchError) as caught:
        map_file(pd.DataFrame(index=own), 0.3, organism)
    message = str(caught.value)
    assert message.startswith(f"d: only 0 of {len(own)} genes (first: {own[0]}")
    assert f"are genes of {organism}; the tables know " in message
    assert step in message


def test_genes_of_two_organisms_are_refused_with_how_many_of_each(table: pd.DataFrame) -> None:
    mouse = load_gene_table(MOUSE).index[:3]
    own = pd.DataFrame(index=[*table.index, *mouse])
    for organism, counted in ((HUMAN, "4 of Homo sapiens and 3 of"), (MOUSE, "3 of Mus musculus")):
        with pytest.raises(GeneMismatchError, match=f"d: genes of two organisms: {counted}"):
            map_file(own, 0.3, organism)


def test_a_few_genes_of_another_organism_are_transgenes() -> None:
    mouse = load_gene_table(MOUSE).index[:3]
    assert map_file(pd.DataFrame(index=[*human_genes(97).index, *mouse]), 0.3)[1].n_mapped == 97


def test_least_share_of_known_genes_is_a_setting(table: pd.DataFrame) -> None:
    var = pd.DataFrame(index=[*table.index, "x1", "x2", "x3", "x4"])
    assert map_file(var, 0.5)[1].n_mapped == 4
    with pytest.raises(GeneMismatchError, match="only 4 of 8 genes"):
        map_file(var, 0.51)
    with pytest.raises(GeneMismatchError, match="only 0 of 4 genes"):
        map_file(var[4:], 0)


def test_antibodies_are_no_genes() -> None:
    types = ["Gene Expression", "Antibody Capture", "gene expression"]
    var = pd.DataFrame({names.FEATURE_TYPES: pd.Categorical(types)})
    assert find_expression(var, "d").tolist() == [True, False, True]
    assert find_expression(pd.DataFrame(index=range(3)), "d").all()


def test_file_of_antibodies_only_is_refused() -> None:
    var = pd.DataFrame({names.FEATURE_TYPES: ["Antibody Capture", np.nan]})
    with pytest.raises(InputError, match=r"d: no feature is of the type .*says Antibody Capture"):
        find_expression(var, "d")
