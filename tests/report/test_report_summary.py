"""`report.json`: the numbers of the page, equal in every build."""

import json
import platform
from dataclasses import replace

import pytest
from report_inputs import make_tables, write_report, write_tables

from tabatlas.errors import InputError
from tabatlas.provenance import read_json
from tabatlas.report.settings import ReportSettings
from tabatlas.report.stage import read_epochs, run
from tabatlas.report.summary import rank_confusions, summarize_atlas, trace_curve


def summarize(tables, **settings):
    return summarize_atlas(tables, ReportSettings.parse(settings, "report"))


def test_two_runs_write_the_same_numbers(tmp_path):
    for name in ("one", "other"):
        write_report(make_tables(), tmp_path / name)
    one, other = (tmp_path / name / "json" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_facts_of_the_run_stand_apart_from_the_numbers(tmp_path):
    write_report(make_tables(), tmp_path)
    facts = read_json(tmp_path / "run")
    assert facts["host"] == platform.node()
    assert facts["written"] not in (tmp_path / "json").read_text()
    assert {"written", "host", "jobs", "versions"} <= facts.keys()
    assert facts["host"] in (tmp_path / "index.html").read_text()


def test_datasets_stand_in_the_order_of_the_atlas():
    tables = make_tables()
    mixed = replace(tables, fetch=tables.fetch[::-1], qc=tables.qc[1:] + tables.qc[:1])
    assert summarize(mixed)["datasets"] == summarize(tables)["datasets"]


@pytest.mark.parametrize("stage", ["fetch", "qc", "normalize"])
def test_dataset_without_a_table_is_named(stage):
    tables = make_tables()
    with pytest.raises(InputError, match=f"{stage} has no table of 1 of 4 .*'screen_d'"):
        summarize(replace(tables, **{stage: getattr(tables, stage)[:-1]}))


@pytest.mark.parametrize("text", ["", '{"seed": 1', "[]", "\xff"])
def test_damaged_table_is_named_and_nothing_is_written(tmp_path, text):
    paths = write_tables(make_tables(), tmp_path)
    paths["split"].write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"split\.json"):
        run(**paths)
    assert not (tmp_path / "index.html").exists()


def test_damaged_row_of_the_metrics_is_named(tmp_path):
    paths = write_tables(make_tables(), tmp_path)
    with open(paths["pretrain_metrics"], "a") as file:
        file.write('{"epoch": 30,')
    with pytest.raises(InputError, match=r"pretrain_metrics\.jsonl:91"):
        run(**paths)


def test_rows_of_steps_are_not_kept(tmp_path):
    paths = write_tables(make_tables(), tmp_path)
    rows = read_epochs(paths["pretrain_metrics"])
    assert [row["epoch"] for row in rows] == list(range(30))


def test_title_is_the_bundle_name_unless_given():
    assert summarize(make_tables())["title"] == "demo"
    assert summarize(make_tables(), title="Blood")["title"] == "Blood"


def test_epochs_are_counted_from_one():
    metrics = [{"epoch": 0, "train_loss": 2.0, "validation_loss": 1.5}]
    assert trace_curve(metrics, "train_loss") == [[1, 2.0]]
    assert summarize(make_tables())["finetuning"]["best_epoch"] == 15


def test_commonest_confusion_comes_first_and_right_answers_are_none():
    ranked = rank_confusions(["a", "b"], [[90, 10], [30, 10]])
    assert [(row["true"], row["predicted"], row["n_cells"]) for row in ranked] == [
        ("b", "a", 30),
        ("a", "b", 10),
    ]
    assert ranked[0]["share"] == 0.75


def test_types_are_counted_in_every_dataset():
    summary = summarize(make_tables())
    labels = summary["atlas"]["composition"]["labels"]
    for dataset, counts in zip(
        summary["datasets"], summary["atlas"]["composition"]["counts"], strict=True
    ):
        assert dict(zip(labels, counts, strict=True)) == dataset["labels"]


def test_summary_is_plain_json():
    summary = summarize(make_tables())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
