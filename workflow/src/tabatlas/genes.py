"""Gene ids: the GENCODE tables in `resources/` and the mapping of a file's own names onto them."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tabatlas.errors import ConfigError, GeneMismatchError
from tabatlas.names import FEATURE_ID, FEATURE_NAME, FEATURE_TYPE, PROTEIN_CODING
from tabatlas.provenance import find_resources

TABLES = {
    "Homo sapiens": "genes_homo_sapiens.csv.gz",
    "Mus musculus": "genes_mus_musculus.csv.gz",
}
ENSEMBL_ID = re.compile(r"^(ENS[A-Z]*G\d{11})(\.\d+)?(_PAR_Y)?$")


@dataclass(frozen=True)
class GeneMapping:
    """Which gene of the table each name of a file stands for.

    `feature_id` holds one Ensembl id per name, "" where none was found; `kind` is what most names
    are: "ensembl" or "symbol".
    """

    kind: str
    feature_id: np.ndarray

    @property
    def n_mapped(self) -> int:
        """Number of names that were found."""
        return int((self.feature_id != "").sum())

    @property
    def n_genes(self) -> int:
        """Number of genes that were found."""
        return len(set(self.feature_id) - {""})


@functools.cache
def load_gene_table(organism: str) -> pd.DataFrame:
    """The GENCODE genes of an organism in genome order.

    Index `feature_id` (Ensembl id without version), columns `feature_name` (symbol) and
    `feature_type` (biotype). Source: see `resources/README.md`.
    """
    if organism not in TABLES:
        raise ConfigError(f"organism `{organism}`: choose one of {', '.join(TABLES)}.")
    table = pd.read_csv(
        find_resources() / TABLES[organism],
        names=[FEATURE_ID, FEATURE_NAME, "version", "length", FEATURE_TYPE],
        usecols=[FEATURE_ID, FEATURE_NAME, FEATURE_TYPE],
        dtype=str,
        keep_default_na=False,
    )
    return table.set_index(FEATURE_ID)


@functools.cache
def ids_by_symbol(organism: str) -> dict[str, str]:
    """Symbol to Ensembl id. A symbol of several genes means its protein-coding, else first one."""
    table = load_gene_table(organism).reset_index()
    coding_first = table[FEATURE_TYPE].ne(PROTEIN_CODING).to_numpy().argsort(kind="stable")
    unique = table.iloc[coding_first].drop_duplicates(FEATURE_NAME)
    return dict(zip(unique[FEATURE_NAME], unique[FEATURE_ID], strict=True))


def map_names(names: Iterable[object], organism: str) -> GeneMapping:
    """Map names onto the organism's table: an Ensembl id (version ignored), else a symbol."""
    known, symbols = load_gene_table(organism).index, ids_by_symbol(organism)
    names = [str(name) for name in names]
    ids = pd.Index([strip_version(name) for name in names], dtype=object)
    as_ids = np.where(ids.isin(known), ids, "")
    as_symbols = np.array([symbols.get(name, "") for name in names], dtype=object)
    kind = "ensembl" if (as_ids != "").sum() >= (as_symbols != "").sum() else "symbol"
    return GeneMapping(kind, np.where(as_ids == "", as_symbols, as_ids))


def strip_version(name: str) -> str:
    """`ENSG00000139618.19` → `ENSG00000139618`; anything else stays."""
    found = ENSEMBL_ID.match(name)
    return found[1] if found else name


def read_gene_list(path: Path, organism: str) -> pd.Index:
    """Read one gene (Ensembl id or symbol) per line, in the file's order, as Ensembl ids.

    Raises `ConfigError` for a missing file, `GeneMismatchError` for unknown or repeated genes.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable gene list ({error}).") from None
    names = [line.split("\t")[0].strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise GeneMismatchError(f"{path}: no gene in it. Write one Ensembl id or symbol per line.")
    genes = pd.Index(map_names(pd.Index(names), organism).feature_id, name=FEATURE_ID)
    for place in np.flatnonzero(genes == "")[:1]:
        raise GeneMismatchError(
            f"{path}: `{names[place]}` is no gene of {organism}. Use current GENCODE ids."
        )
    for place in np.flatnonzero(genes.duplicated())[:1]:
        raise GeneMismatchError(f"{path}: `{names[place]}` ({genes[place]}) stands there twice.")
    return genes


def choose_atlas_genes(genes: str, organism: str) -> pd.Index:
    """Ensembl ids of an atlas in their one order: all protein-coding genes, or those of a file."""
    if genes != PROTEIN_CODING:
        return read_gene_list(Path(genes), organism)
    table = load_gene_table(organism)
    return table.index[table[FEATURE_TYPE] == PROTEIN_CODING]
