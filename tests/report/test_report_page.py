"""The page: what it shows, and that nothing in the data can make it do more than show."""

import copy
import re
import time
from dataclasses import replace

import pytest
from integration_inputs import leave_unintegrated
from page_parts import PageParts
from report_inputs import HOSTILE, leave_untested, make_tables, write_report

from tabatlas.provenance import read_json
from tabatlas.report.page import digest_source

SECTIONS = [
    "verdict",
    "data",
    "qc",
    "split",
    "pretraining",
    "finetuning",
    "test",
    "integration",
    "perturbation",
    "explanation",
    "provenance",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    page = write_report(make_tables(), tmp_path_factory.mktemp("demo"))
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    tables = make_tables(dict.fromkeys(HOSTILE, "CL:0000000"))
    tables.fetch[0]["unmapped_labels"] = list(HOSTILE)
    tables.qc[0]["samples"][0] |= {"batch": HOSTILE[0], "note": HOSTILE[1], "n_kept": 3}
    tables.finetune_scores["notes"] = [HOSTILE[0]]
    tables.integrate_scores["undefined"] = {"kbet": HOSTILE[1]}
    tables.integrate_layout["batch"][:4] = HOSTILE[:4]
    page = write_report(tables, tmp_path_factory.mktemp("hostile"), title=HOSTILE[0])
    return page.read_text(encoding="utf-8")


def test_page_holds_every_section_and_the_navigation_leads_to_each(demo):
    parts = PageParts(demo)
    assert [name for name in parts.find("id") if name in SECTIONS] == SECTIONS
    assert {f"#{name}" for name in SECTIONS} <= set(parts.find("href"))


def test_page_names_nothing_outside_itself(demo):
    parts = PageParts(demo)
    assert all(link.startswith("#") for link in parts.find("href"))
    assert not parts.find("src")
    assert not {"link", "img", "iframe", "object", "embed"} & set(parts.tags)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", " ".join(parts.sources))


def test_policy_lets_only_the_own_style_and_script_run(demo):
    parts = PageParts(demo)
    (policy,) = [value for value in parts.find("content") if "default-src" in value]
    style, script = re.findall(r"'(sha256-[^']+)'", policy)
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; ")
    assert "unsafe" not in policy
    assert [digest_source(source) for source in parts.sources] == [style, script]


def test_hostile_labels_make_no_element_and_no_handler(hostile):
    parts = PageParts(hostile)
    assert parts.tags.count("script") == 1
    assert "img" not in parts.tags
    assert not [name for name, _ in parts.attributes if name.startswith("on")]


def test_hostile_labels_are_shown_as_they_are(hostile):
    parts = PageParts(hostile)
    shown = parts.words + " ".join(" ".join(parts.find("title")).split())
    for label in HOSTILE:
        assert " ".join(label.split()) in shown


def test_page_says_that_logistic_regression_is_not_beaten(demo):
    assert "Does not beat logistic regression: 0.934 against 0.941" in PageParts(demo).words


def test_every_score_of_the_methods_stands_on_the_page(demo, tmp_path):
    write_report(make_tables(), tmp_path)
    words = PageParts(demo).words
    for method in read_json(tmp_path / "json")["test"]["methods"].values():
        for value in (*method["macro_f1"].values(), method["accuracy"], method["nll"]):
            assert f"{value:.3f}" in words


def test_untested_unpretrained_model_is_called_so(tmp_path):
    tables = leave_untested(make_tables())
    scores = dict.fromkeys(tables.pretrain_scores) | {"best_epoch": -1}
    tables = replace(tables, pretrain_metrics=[], pretrain_scores=scores)
    words = PageParts(write_report(tables, tmp_path).read_text()).words
    assert "Built, but not tested" in words
    assert "No labelled test cell: nothing could be tested." in words
    assert "The encoder was not pretrained." in words


def test_atlas_that_loses_no_cell_has_a_page(tmp_path):
    tables = make_tables()
    for table in tables.qc:
        table["reasons"] = dict.fromkeys(table["reasons"], 0)
        table["n_kept"] = table["n_cells"]
    words = PageParts(write_report(tables, tmp_path).read_text()).words
    assert "Dropped 0 of 6,000 cells." in words


def test_one_type_and_one_dataset_have_a_page(tmp_path):
    tables = make_tables({"B cell": "CL:0000236"}, ("only",), n_samples=1)
    assert "1 source file" in PageParts(write_report(tables, tmp_path).read_text()).words


def test_large_atlas_is_drawn_quickly_into_a_page_of_a_few_megabytes(tmp_path):
    types = {f"a type of cell with a long name, {i}": f"CL:{i:07d}" for i in range(150)}
    tables = make_tables(types, tuple(f"dataset_{i}" for i in range(100)))
    start = time.process_time()
    page = write_report(tables, tmp_path)
    assert time.process_time() - start < 10
    assert page.stat().st_size < 6e6


def test_type_without_test_cells_has_no_score(tmp_path):
    tables = make_tables()
    scores = copy.deepcopy(tables.finetune_scores)
    scores["per_class"][0]["n_test"] = 0
    words = PageParts(write_report(replace(tables, finetune_scores=scores), tmp_path).read_text())
    assert "no test cell" in words.words


def test_page_says_which_baselines_of_the_integration_are_not_beaten(demo):
    words = PageParts(demo).words
    assert "Beats PCA, which integrates nothing: integration total 0.714 against 0.608" in words
    assert "Does not beat Harmony on PCA: integration total 0.714 against 0.764" in words


def test_every_score_of_the_integration_stands_on_the_page(demo, tmp_path):
    write_report(make_tables(), tmp_path)
    words = PageParts(demo).words
    methods = read_json(tmp_path / "json")["integration"]["methods"]
    for method in methods.values():
        for value in (one for one in method.values() if isinstance(one, float)):
            assert f"{value:.3f}" in words
    totals = [method["total"] for method in methods.values()]
    assert len(totals) == 5
    assert read_json(tmp_path / "json")["integration"]["comparisons"].keys() < methods.keys()


def test_cells_are_drawn_before_and_after_by_type_and_by_batch(demo):
    paths = [
        value for value in PageParts(demo).find("d") if value.startswith("M") and "h0" in value
    ]
    n_dots = [len(re.findall(r"M[\d.]+ [\d.]+h0", path)) for path in paths]
    assert sum(n_dots) == 4 * 1500
    assert len(paths) <= 4 * 12 * 8  # long paths, not an element for each dot


def test_integration_that_could_not_be_scored_says_why(tmp_path):
    page = write_report(leave_unintegrated(make_tables()), tmp_path)
    words = PageParts(page.read_text()).words
    assert "Nothing could be scored: needs two batches." in words
    assert "Integrated, but not scored: needs two batches." in words
    assert "UMAP" not in words


def test_who_gets_a_label_is_told_for_each_set_of_cells(demo):
    table = demo.split("<b>Who gets a label")[1].split("</table>")[0]
    row = table.split("permuted genes")[1].split("</tr>")[0]
    assert re.findall(r">([^<>]*\d[^<>]*)<", row) == ["500", "3.0 %", "97.0 %", "0 %"]


def test_an_untested_atlas_tells_of_no_labels(tmp_path):
    page = write_report(leave_untested(make_tables()), tmp_path)
    assert "Who gets a label" not in page.read_text(encoding="utf-8")
