"""The Cell Ontology: labels to terms, obsolete terms, descendants and an order of terms.

The ontology is the release that `cellxgene-ontology-guide` ships.
"""

import functools

from cellxgene_ontology_guide.ontology_parser import OntologyParser


@functools.cache
def parser() -> OntologyParser:
    """The parser of the shipped ontologies."""
    return OntologyParser()


@functools.cache
def ids_by_label() -> dict[str, str]:
    """Lower-case names of the current Cell Ontology terms, to their ids."""
    return {
        label.lower(): term
        for label, term in parser().get_term_label_to_id_map("CL").items()
        if not parser().is_term_deprecated(term)
    }


def judge_term(term: str) -> str:
    """What keeps `term` from being a current Cell Ontology id and what to use, or ""."""
    if not parser().is_valid_term_id(term, "CL"):
        return f"`{term}` is no Cell Ontology id; look it up at https://www.ebi.ac.uk/ols4"
    if parser().is_term_deprecated(term):
        replacement = parser().get_term_replacement(term)
        step = f"use {replacement}" if replacement else "choose a current term"
        return f"`{term}` ({name_term(term)}) is obsolete; {step}"
    return ""


@functools.cache
def name_term(term: str) -> str:
    """The ontology's own name of a term."""
    return parser().get_term_label(term)


@functools.cache
def ancestors(term: str) -> frozenset[str]:
    """Every term that `term` is a kind of, itself left out; nothing for a label without an id."""
    if not parser().is_valid_term_id(term, "CL"):
        return frozenset()
    return frozenset(parser().get_term_ancestors(term)) - {term}


def lineage(term: str) -> tuple[str, ...]:
    """The path from the most general ancestor to the term: sorting by it groups relatives."""
    return (*sorted(ancestors(term), key=lambda one: (len(ancestors(one)), one)), term)
