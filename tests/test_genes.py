from pathlib import Path

import pandas as pd
import pytest

from tabatlas.errors import ConfigError, GeneMismatchError
from tabatlas.genes import (
    choose_atlas_genes,
    ids_by_symbol,
    load_gene_table,
    map_names,
    read_gene_list,
)
from tabatlas.names import FEATURE_NAME, FEATURE_TYPE, PROTEIN_CODING

HUMAN, MOUSE = "Homo sapiens", "Mus musculus"
BRCA2, PLCXD1, GAPDH = "ENSG00000139618", "ENSG00000182378", "ENSG00000111640"


def write_list(folder: Path, text: str) -> Path:
    path = folder / "genes.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "gene"),
    [
        (BRCA2, BRCA2),
        (f"{BRCA2}.19", BRCA2),
        (f"{PLCXD1}.15_PAR_Y", PLCXD1),
        (f"{PLCXD1}_PAR_Y", PLCXD1),
        ("GAPDH", GAPDH),
        ("Gapdh", ""),  # the mouse's spelling: no other organism may pass for this one
        ("ENSMUSG00000041147", ""),
        ("ENSG99999999999", ""),
        ("5243", ""),
        ("nan", ""),
        ("", ""),
    ],
)
def test_name_maps_to_its_gene_or_to_none(name: str, gene: str) -> None:
    assert map_names(pd.Index([name]), HUMAN).feature_id.tolist() == [gene]


def test_ids_and_symbols_may_stand_beside_each_other() -> None:
    mapping = map_names(pd.Index([BRCA2, "GAPDH", "GFP", f"{PLCXD1}.3"]), HUMAN)
    assert mapping.feature_id.tolist() == [BRCA2, GAPDH, "", PLCXD1]
    assert (mapping.kind, mapping.n_mapped) == ("ensembl", 3)


def test_kind_is_what_most_names_are() -> None:
    assert map_names(pd.Index(["BRCA2", "GAPDH", BRCA2]), HUMAN).kind == "symbol"


def test_numbers_are_names_too() -> None:
    assert map_names(pd.Series([1, 2.5, None]), HUMAN).n_mapped == 0


def test_symbol_of_several_genes_means_the_protein_coding_one() -> None:
    table = load_gene_table(HUMAN)
    coding = table[FEATURE_TYPE] == PROTEIN_CODING
    shared = set(table[FEATURE_NAME][coding]) & set(table[FEATURE_NAME][~coding])
    assert shared
    chosen = [ids_by_symbol(HUMAN)[symbol] for symbol in shared]
    assert coding[chosen].all()


def test_organism_without_a_table_is_an_error_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="`Danio rerio`: choose one of Homo sapiens, Mus"):
        load_gene_table("Danio rerio")


def test_atlas_is_all_protein_coding_genes_in_genome_order() -> None:
    for organism in (HUMAN, MOUSE):
        genes = choose_atlas_genes(PROTEIN_CODING, organism)
        table = load_gene_table(organism)
        assert genes.is_unique
        assert 19_000 < len(genes) < 22_500
        assert genes.equals(table.index[table.index.isin(genes)])


def test_gene_list_keeps_its_order_whatever_its_names(tmp_path: Path) -> None:
    text = f"\ufeff# markers\n\nGAPDH\thousekeeping\r\n{BRCA2}.19\r\n{PLCXD1}\n"
    path = write_list(tmp_path, text)
    expected = [GAPDH, BRCA2, PLCXD1]
    assert read_gene_list(path, HUMAN).tolist() == expected
    assert choose_atlas_genes(str(path), HUMAN).tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GAPDH\nGFP\n", "`GFP` is no gene of Homo sapiens"),
        (f"BRCA2\nGAPDH\n{BRCA2}.3\n", rf"`{BRCA2}.3` \({BRCA2}\) stands there twice"),
        ("# nothing\n", "no gene in it"),
    ],
)
def test_gene_list_with_a_wrong_line_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GeneMismatchError, match=f"genes.txt: {message}"):
        read_gene_list(write_list(tmp_path, text), HUMAN)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_gene_list_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "genes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"genes.txt: not a readable gene list"):
        read_gene_list(path, HUMAN)
