import numpy as np
import pandas as pd
import pytest

from foreign import HUMAN, human_genes
from tabatlas import names
from tabatlas.errors import GeneMismatchError, InputError
from tabatlas.fetch.genes import find_expression, map_genes
from tabatlas.genes import GeneMapping


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
    ("own", "organism", "message"),
    [
        (["1", "2", "3"], "Homo sapiens", "only 0 of 3 genes .first: 1, 2, 3. are genes of Homo"),
        (["Actb", "Cd4", "Cd8a"], "Homo sapiens", "0 of Homo sapiens, 3 of Mus musculus"),
        (["ACTB", "CD4", "CD8A"], "Mus musculus", "3 of Homo sapiens, 0 of Mus musculus"),
    ],
)
def test_genes_of_another_organism_are_refused_with_how_many_each_table_knows(
    own: list[str], organism: str, message: str
) -> None:
    with pytest.raises(GeneMismatchError, match=f"d: .*{message}.*Check `gene_id` and `organism`"):
        map_file(pd.DataFrame(index=own), 0.3, organism)


def test_least_share_of_known_genes_is_a_setting(table: pd.DataFrame) -> None:
    var = pd.DataFrame(index=[*table.index, "a", "b", "c", "d"])
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
