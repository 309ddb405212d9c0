"""Guards on the demo atlas that `snakemake --cores all` built: read where it is, else skipped."""

import json

import numpy as np
import pytest

from built_demo import DEMO, NEEDS_DEMO
from tabatlas import names
from tabatlas.finetune import stage as finetune
from tabatlas.provenance import digest_file, read_json

pytestmark = NEEDS_DEMO


def test_hidden_genes_are_predicted_with_nine_tenths_of_the_means_loss():
    assert read_json(DEMO / "pretrain" / "scores.json")["ratio"] <= 0.9


def test_the_classifier_holds_beside_logistic_regression():
    scores = read_json(DEMO / "finetune" / "scores.json")
    assert scores["bootstrap_unit"] == "donors"
    value = {name: one["macro_f1"]["value"] for name, one in scores["methods"].items()}
    # Fine-tuned again with other seeds it has 0.899 to 0.928, beside 0.926 (see the log).
    assert value["tabnet"] >= value["logistic_regression"] - 0.05
    assert value["tabnet"] > value["majority"] + 0.5


def test_with_shuffled_labels_the_score_falls_to_chance(tmp_path, monkeypatch):
    """Were the test's labels known to any part of the training, this would stay high."""
    real = finetune.PackedSource

    def shuffle_labels(pack, part, *columns):
        source = real(pack, part, *columns)
        codes = np.random.default_rng(0).permutation(source.cells.columns[names.CELL_TYPE])
        source.cells.columns = {**source.cells.columns, names.CELL_TYPE: codes}
        return source

    monkeypatch.setattr(finetune, "PackedSource", shuffle_labels)
    settings = tmp_path / "finetune.json"
    settings.write_text(json.dumps({"epochs": 5}))
    finetune.run(
        DEMO / "pretrain",
        DEMO / "pack" / "manifest.json",
        DEMO / "ingest" / "manifest.json",
        DEMO / "split" / "cells.parquet",
        DEMO / "split" / "split.json",
        settings,
        tmp_path / "checkpoints",
        tmp_path / "model",
    )
    scores = read_json(tmp_path / "model" / "scores.json")
    for method in ("tabnet", "logistic_regression"):
        # Eight classes: 0.125 for guessing evenly, less for naming the commonest.
        assert scores["methods"][method]["macro_f1"]["value"] < 0.2


def test_the_bundle_proves_itself():
    about = read_json(DEMO / "bundle" / "bundle.json")
    folder = DEMO / "bundle" / about["path"]
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(about["files"]) > 15
    for line in lines:
        sha256, name = line.split("  ")
        assert digest_file(folder / name) == sha256


def test_no_cell_of_the_test_is_in_the_pack():
    proof = read_json(DEMO / "split" / "split.json")
    assert set(proof["disjoint"].values()) == {0}
    assert proof["parts"]["test"]["n_donors"] >= 5


@pytest.mark.slow
def test_two_builds_in_two_folders_give_the_same_bundle(tmp_path):
    """The whole demo again, elsewhere: same version, same bytes."""
    from test_rules import Workdir

    Workdir(tmp_path).snakemake("--cores", "2")
    about = read_json(DEMO / "bundle" / "bundle.json")
    again = read_json(tmp_path / "results" / "demo" / "bundle" / "bundle.json")
    assert again == about
