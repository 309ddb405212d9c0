"""Why the genes of a file are not those of its organism, in words that lead to the next step."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tabatlas.errors import GeneMismatchError, show, show_some
from tabatlas.genes import TABLES, GeneMapping, load_gene_table, map_names
from tabatlas.names import FEATURE_NAME

# Of a file of one organism, a few genes of another are a reporter or a transgene (own choice).
STRANGERS = 0.1
GENOME = re.compile(r"^(GRC[a-z]\d+|hg\d+|mm\d+|rn\d+)_+")
ID_WITHIN = re.compile(r"ENS[A-Z]*G\d{11}")
NUMBER = re.compile(r"\d+(\.0)?")


def refuse_two_organisms(
    column: Sequence[str], mapping: GeneMapping, place: str, organism: str
) -> None:
    """Raise `GeneMismatchError` where one file holds genes of two organisms.

    `mapping` is that of the names in `column` onto `organism`.
    """
    for other in [one for one in TABLES if one != organism]:
        strange = (map_names(column, other).feature_id != "") & (mapping.feature_id == "")
        n_strange, n_own = int(strange.sum()), mapping.n_mapped
        if min(n_strange, n_own) >= max(1, STRANGERS * len(column)):
            raise GeneMismatchError(
                f"{place}: genes of two organisms: {n_own} of {organism} and {n_strange} of "
                f"{other} (first: {show(column[np.flatnonzero(strange)[0]])}). Give a file with "
                "the cells and genes of one."
            )


def explain_mismatch(
    column: Sequence[str], place: str, organism: str, otherwise: str
) -> GeneMismatchError:
    """The error about a file of whose names in `column` too few are genes of `organism`.

    `otherwise` is the next step where the names themselves show none.
    """
    column = [str(name) for name in column]
    found = count_known(column)
    known = ", ".join(f"{n} of {other}" for other, n in found.items())
    hints = (hint(column, organism) for hint in HINTS)
    step = next(filter(None, hints), otherwise)
    return GeneMismatchError(
        f"{place}: only {found[organism]} of {len(column)} genes (first: "
        f"{show_some(column[:3])}) are genes of {organism}; the tables know {known}. {step}"
    )


def count_known(column: Sequence[str]) -> dict[str, int]:
    """How many of the names each organism's table knows."""
    return {organism: map_names(column, organism).n_mapped for organism in TABLES}


def suggest_organism(column: Sequence[str], organism: str) -> str:
    """For genes that another organism's table knows."""
    found = count_known(column)
    best = max(found, key=lambda other: found[other])
    return f"Set `organism: {best}`." if found[best] > len(column) / 2 else ""


def suggest_genome(column: Sequence[str], organism: str) -> str:
    """For names that begin with the genome they were aligned to, as those of mixed species do."""
    genomes = Counter(match[1] for match in map(GENOME.match, column) if match)
    if genomes.total() <= len(column) / 2:
        return ""
    each = ", ".join(f"{n} with {genome}" for genome, n in sorted(genomes.items()))
    return (
        f"The names begin with a genome ({each}): keep the cells and genes of one organism, and "
        "cut the genome off."
    )


def suggest_id_within(column: Sequence[str], organism: str) -> str:
    """For names that are an Ensembl id and something else."""
    found = [match for match in map(ID_WITHIN.search, map(str.upper, column)) if match]
    if len(found) <= len(column) / 2:
        return ""
    return f"{len(found)} names hold an Ensembl id: write it alone ({found[0][0]})."


def suggest_case(column: Sequence[str], organism: str) -> str:
    """For symbols in another case, where that is likelier than another organism."""
    written = {name.lower(): name for name in load_gene_table(organism)[FEATURE_NAME]}
    found = [name for name in column if name.lower() in written]
    if len(found) <= max(len(column) / 2, *count_known(column).values()):
        return ""
    return (
        f"In GENCODE's spelling {len(found)} would be known (`{show(found[0])}` → "
        f"`{written[found[0].lower()]}`): write them so, or correct `organism`."
    )


def suggest_column(column: Sequence[str], organism: str) -> str:
    """For numbers, which are no names: the row of a table, or ids of Entrez."""
    if sum(bool(NUMBER.fullmatch(name)) for name in column) <= len(column) / 2:
        return ""
    return (
        "They are numbers, such as ids of Entrez: give Ensembl ids or symbols, and name their "
        "column in `gene_id`."
    )


Hint = Callable[[Sequence[str], str], str]
# What the names themselves show comes before what could be made of them.
HINTS: tuple[Hint, ...] = (
    suggest_genome,
    suggest_column,
    suggest_case,
    suggest_organism,
    suggest_id_within,
)
