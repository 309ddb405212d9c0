"""The stage: every cell judged, every dropped cell with its reason, nothing lost silently."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabatlas import blocks
from tabatlas.counts import read_counts
from tabatlas.errors import InputError
from tabatlas.names import BATCH, DOUBLET_SCORE, KEEP, N_GENES, OBS_ID, PCT_MT, REASON, TOTAL_COUNTS
from tabatlas.provenance import digest_file, read_json
from tabatlas.qc.samples import read_samples
from tabatlas.qc.stage import run

LIMITS = {"panel_genes": 0, "min_genes": 40}


@pytest.fixture
def mixed(draw_cells) -> np.ndarray:
    """200 cells: 0-4 empty, 5-9 with 20 genes, 10-12 dying, 13 three-fold."""
    counts = draw_cells(200)
    counts[:10] = 0
    counts[5:10, 50:70] = 1
    counts[10:13, :10] += 300
    counts[13] *= 30
    return counts


def run_qc(source: Path, folder: Path, **settings: object) -> Path:
    """Run the stage on a source; return the folder that holds its three files."""
    folder.mkdir()
    (folder / "qc.json").write_text(json.dumps(settings))
    files = (folder / f"set1.{kind}" for kind in ("h5ad", "parquet", "json"))
    run(source, folder / "qc.json", *files)
    return folder


def test_every_cell_is_in_the_table_and_has_a_reason_if_and_only_if_it_is_dropped(
    mixed, write_source, tmp_path
):
    source = write_source(mixed)
    out = run_qc(source, tmp_path / "qc", **LIMITS)
    table = pd.read_parquet(out / "set1.parquet")
    assert table[OBS_ID].tolist() == read_counts(source).obs_names.tolist()
    assert (table[KEEP] == (table[REASON] == "")).all()
    reasons = table[REASON].str.split(";")
    assert all("low_counts" in one for one in reasons[:5])
    assert all("low_genes" in one and "low_counts" not in one for one in reasons[5:10])
    assert all("high_mt" in one and "outlier_mt" in one for one in reasons[10:13])
    assert "outlier_counts" in reasons[13]


def test_the_kept_cells_are_written_unchanged_with_their_metrics(mixed, write_source, tmp_path):
    source = write_source(mixed)
    out = run_qc(source, tmp_path / "qc", **LIMITS)
    kept, table = read_counts(out / "set1.h5ad"), pd.read_parquet(out / "set1.parquet")
    table = table[table[KEEP]].set_index(OBS_ID)
    assert kept.obs_names.tolist() == table.index.tolist()
    before = read_counts(source)[kept.obs_names]
    assert (kept.X != before.X).nnz == 0
    assert kept.var.equals(before.var)
    for name in (N_GENES, TOTAL_COUNTS, PCT_MT, DOUBLET_SCORE):
        assert kept.obs[name].dtype in (np.float32, np.int32)
        assert kept.obs[name].equals(table[name])
    assert not kept.obs.isna().any().any()


def test_the_facts_agree_with_the_table(mixed, write_source, tmp_path):
    source = write_source(mixed, batch=["a"] * 80 + ["b"] * 120)
    out = run_qc(source, tmp_path / "qc", **LIMITS)
    facts, table = read_json(out / "set1.json"), pd.read_parquet(out / "set1.parquet")
    assert facts["dataset_id"] == "set1"
    assert facts["n_cells"] == 200
    assert facts["n_kept"] == table[KEEP].sum() > 170
    for reason, n_cells in facts["reasons"].items():
        assert n_cells == table[REASON].str.contains(reason).sum()
    assert [one["batch"] for one in facts["samples"]] == ["a", "b"]
    for one, (_, cells) in zip(facts["samples"], table.groupby(BATCH, observed=True), strict=True):
        assert one["n_cells"] == len(cells)
        assert one["n_kept"] == cells[KEEP].sum()
        assert one["median_counts"] == cells[TOTAL_COUNTS].median()
        assert one["median_genes"] == cells[N_GENES].median()
        assert one["median_pct_mt"] == cells[PCT_MT].median()
    assert facts["samples"][0]["note"] == "not searched for doublets: 66 cells are too few"
    assert facts["samples"][1]["note"] == ""
    assert facts["samples"][1]["doublet_threshold"] > 0


def test_doublets_are_searched_sample_by_sample(draw_cells, write_source, tmp_path):
    counts = draw_cells(240)
    counts[:10] += draw_cells(241)[231:]  # of another type each
    mixed = run_qc(write_source(counts, batch=["a", "b"] * 120), tmp_path / "both", **LIMITS)
    alone = run_qc(write_source(counts[::2], name="a"), tmp_path / "alone", **LIMITS)
    scores = pd.read_parquet(mixed / "set1.parquet")[DOUBLET_SCORE].to_numpy()
    np.testing.assert_array_equal(
        scores[::2], pd.read_parquet(alone / "set1.parquet")[DOUBLET_SCORE].to_numpy()
    )


def test_two_runs_give_the_same_bytes(mixed, write_source, tmp_path):
    source = write_source(mixed)
    first = run_qc(source, tmp_path / "first", **LIMITS)
    second = run_qc(source, tmp_path / "second", **LIMITS)
    for name in ("set1.h5ad", "set1.parquet", "set1.json"):
        assert digest_file(first / name) == digest_file(second / name)


@pytest.mark.parametrize("most", [1, 2000])
def test_the_size_of_blocks_does_not_change_a_byte(
    draw_cells, write_source, tmp_path, monkeypatch, most
):
    source = write_source(draw_cells(360), batch=["a", "b", "c"] * 120)
    whole = run_qc(source, tmp_path / "whole", **LIMITS)
    assert pd.read_parquet(whole / "set1.parquet")[DOUBLET_SCORE].gt(0).sum() > 350
    monkeypatch.setattr(blocks, "BLOCK", most)
    parts = run_qc(source, tmp_path / "parts", **LIMITS)
    for name in ("set1.h5ad", "set1.parquet", "set1.json"):
        assert digest_file(parts / name) == digest_file(whole / name)


def test_a_sample_that_is_not_searched_is_not_read(draw_cells, write_source, tmp_path, monkeypatch):
    source = write_source(draw_cells(240), batch=["a"] * 130 + ["b"] * 110)
    read = []

    def note(path, rows):
        read.append(list(rows))
        return read_samples(path, rows)

    monkeypatch.setattr("tabatlas.qc.samples.read_samples", note)
    run_qc(source, tmp_path / "qc", doublet_max_cells=120, **LIMITS)
    assert read == [["b"]]


def test_a_lost_sample_is_warned_of_and_noted(mixed, write_source, tmp_path, caplog):
    source = write_source(mixed, batch=["gone"] * 5 + ["fine"] * 195)
    with caplog.at_level(logging.WARNING):
        out = run_qc(source, tmp_path / "qc", **LIMITS)
    assert "sample gone of 5 cells is gone" in caplog.text
    gone = read_json(out / "set1.json")["samples"][1]
    assert (gone["batch"], gone["n_kept"]) == ("gone", 0)
    assert "every cell is dropped" in gone["note"]


def test_a_lost_dataset_is_an_error_that_names_reason_and_knob(mixed, write_source, tmp_path):
    source = write_source(mixed)
    with pytest.raises(InputError, match=r"all 200 cells \(.*low_counts 200.*`qc.min_counts`") as e:
        run_qc(source, tmp_path / "qc", min_counts=1_000_000)
    assert e.value.exit_code == 3
    assert [path.name for path in (tmp_path / "qc").iterdir()] == ["qc.json"]


def test_a_panel_loses_its_empty_cells_only(draw_cells, write_source, tmp_path):
    panel = draw_cells(150)[:, ::4]
    panel[3] = 0
    source = write_source(panel, n_mitochondrial=0)
    facts = read_json(run_qc(source, tmp_path / "qc") / "set1.json")
    assert facts["n_kept"] == 149
    assert facts["reasons"]["low_counts"] == 1
    assert facts["notes"][0].startswith("no mitochondrial gene in the file")
    assert facts["notes"][1].startswith("75 genes are no whole transcriptome")
