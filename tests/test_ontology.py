import pytest

from tabatlas.ontology import ancestors, ids_by_label, judge_term, lineage, name_term

B_CELL, T_CELL, LYMPHOCYTE, CELL = "CL:0000236", "CL:0000084", "CL:0000542", "CL:0000000"
CD4_T, CD8_T, MONOCYTE, PLASMA = "CL:0000624", "CL:0000625", "CL:0000576", "CL:0000786"


def test_name_of_a_term_leads_to_its_id_and_back() -> None:
    assert ids_by_label()["b cell"] == B_CELL
    assert name_term(B_CELL) == "B cell"


def test_current_term_is_fine() -> None:
    assert judge_term(B_CELL) == ""


@pytest.mark.parametrize("term", ["CL:9999999", "B cell", "", "PATO:0000461"])
def test_what_is_no_term_is_named(term: str) -> None:
    assert f"`{term}` is no Cell Ontology id" in judge_term(term)


def test_obsolete_term_is_named_with_its_replacement() -> None:
    assert (
        judge_term("CL:0000054") == "`CL:0000054` (obsolete bone matrix secreting cell) is "
        "obsolete; use CL:0000062"
    )
    assert "choose a current term" in judge_term("CL:0000004")


def test_obsolete_terms_are_found_by_no_name() -> None:
    assert "CL:0000054" not in ids_by_label().values()


def test_ancestors_are_what_a_term_is_a_kind_of() -> None:
    assert {LYMPHOCYTE, CELL} <= ancestors(B_CELL)
    assert B_CELL not in ancestors(B_CELL)
    assert ancestors(CELL) == frozenset()


@pytest.mark.parametrize("label", ["my own type", "unknown", ""])
def test_label_without_a_term_has_no_ancestors(label: str) -> None:
    assert ancestors(label) == frozenset()
    assert lineage(label) == (label,)


def test_lineage_leads_from_the_most_general_term_to_the_term() -> None:
    line = lineage(B_CELL)
    assert (line[0], line[-1]) == (CELL, B_CELL)
    for place, term in enumerate(line):
        assert ancestors(term) <= set(line[:place])


def test_order_by_lineage_puts_relatives_beside_each_other() -> None:
    ordered = sorted([CD4_T, MONOCYTE, PLASMA, CD8_T, B_CELL], key=lineage)
    assert abs(ordered.index(CD4_T) - ordered.index(CD8_T)) == 1
