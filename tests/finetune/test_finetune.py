import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from torch.nn.functional import cross_entropy

from tabatlas import names
from tabatlas.errors import InputError, IntegrityError
from tabatlas.finetune import stage
from tabatlas.finetune.calibrate import calibrate, fit_temperature
from tabatlas.finetune.classes import choose_classes, repeat_classes, weigh_classes
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.pretrain import stage as pretrain
from tabatlas.provenance import digest_file, read_json
from tabatlas.stream.layout import seal
from tabatlas.train.model import read_model

FILES = {
    "calibration.json",
    "config.json",
    "genes.parquet",
    "labels.json",
    "metrics.jsonl",
    "model.safetensors",
    "predictions.parquet",
    "scores.json",
}


@pytest.fixture(scope="module")
def encoder(atlas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    knobs = {"architecture": {"n_d": 8, "n_a": 8, "n_steps": 1}, "epochs": 2, "threads": 1}
    (folder / "pretrain.json").write_text(json.dumps(knobs | {"batch_size": 32}))
    pretrain.run(atlas.pack, folder / "pretrain.json", folder / "checkpoints", folder / "model")
    return folder / "model"


def finetune(atlas, encoder, folder, pack=None, **knobs):
    """Run the stage; return the model's folder."""
    chosen = {"epochs": 15, "batch_size": 32, "threads": 1, "learning_rate": 0.01} | knobs
    settings = folder / "finetune.json"
    settings.write_text(json.dumps(chosen))
    stage.run(
        encoder,
        pack or atlas.pack,
        atlas.manifest,
        atlas.cells,
        atlas.proof,
        settings,
        folder / "checkpoints",
        folder / "model",
    )
    return folder / "model"


@pytest.fixture(scope="module")
def model(atlas, encoder, tmp_path_factory):
    return finetune(atlas, encoder, tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def scores(model):
    return read_json(model / "scores.json")


def test_types_with_genes_of_their_own_are_learnt(scores):
    methods = scores["methods"]
    assert methods["tabnet"]["macro_f1"]["value"] > 0.95
    assert methods["tabnet"]["macro_f1"]["value"] > methods["majority"]["macro_f1"]["value"] + 0.5


def test_every_method_is_scored_on_all_labelled_test_cells(atlas, scores):
    cells = pd.read_parquet(atlas.cells)
    tested = cells[cells[names.SPLIT] == "test"]
    assert scores["n_test_cells"] == len(tested)
    assert scores["n_test_donors"] == tested["donor"].nunique()
    assert sum(row["n_test"] for row in scores["per_class"]) == len(tested)
    assert np.sum(scores["confusion"]["counts"]) == len(tested)
    assert sum(one["n_cells"] for one in scores["reliability"]) == len(tested)


def test_predictions_of_every_test_cell_are_written(atlas, model, scores):
    cells = pd.read_parquet(atlas.cells)
    table = pd.read_parquet(model / "predictions.parquet")
    tested = cells.loc[cells[names.SPLIT] == "test", names.JOINID]
    assert sorted(table[names.JOINID]) == sorted(tested)
    right = (table["predicted"] == table[names.CELL_TYPE].astype(str)).mean()
    assert right == pytest.approx(scores["methods"]["tabnet"]["accuracy"])
    assert table["confidence"].between(0, 1).all()


def test_the_folder_holds_a_whole_classifier(model, scores):
    assert {path.name for path in model.iterdir()} == FILES
    found = read_model(model)
    labels = read_json(model / "labels.json")
    assert [one["label"] for one in labels] == scores["confusion"]["labels"]
    assert found.tensors["classifier/head.weight"].shape == (len(labels), 8)
    assert read_json(model / "calibration.json")["temperature"] == scores["temperature"]


def test_noise_made_from_the_test_gets_no_label_and_its_cells_do(model, scores):
    sets = {row["cells"]: row for row in scores["rejection"]["sets"]}
    assert set(sets) == {"test", "third_depth", "half_genes", "permuted_genes", "ambient"}
    assert sets["test"]["assigned"] > 0.9
    assert sets["ambient"]["assigned"] < 0.1
    assert sets["permuted_genes"]["auroc"] > 0.9
    calibration = read_json(model / "calibration.json")
    assert calibration["min_typicality"] == scores["rejection"]["min_typicality"]
    table = pd.read_parquet(model / "predictions.parquet")
    assert (table["status"] == "assigned").mean() == pytest.approx(sets["test"]["assigned"])


def test_two_runs_give_the_same_bytes(atlas, encoder, model, tmp_path):
    again = finetune(atlas, encoder, tmp_path)
    for name in FILES:
        assert digest_file(model / name) == digest_file(again / name), name


def test_with_shuffled_labels_the_score_falls_to_chance(atlas, encoder, tmp_path, monkeypatch):
    """Were anything of the test's labels known to the training, this would stay high."""
    real = stage.PackedSource

    def shuffle_labels(pack, part, *columns):
        source = real(pack, part, *columns)
        codes = np.random.default_rng(0).permutation(source.cells.columns[names.CELL_TYPE])
        source.cells.columns = {**source.cells.columns, names.CELL_TYPE: codes}
        return source

    monkeypatch.setattr(stage, "PackedSource", shuffle_labels)
    folder = finetune(atlas, encoder, tmp_path)
    value = read_json(folder / "scores.json")["methods"]["tabnet"]["macro_f1"]["value"]
    assert value < 0.5


def make_cells(**counts):
    labels = [label for label, n in counts.items() for _ in range(n)]
    terms = {"b": "CL:0000236", "cd4": "CL:0000624", "cd8": "CL:0000625"}
    return pd.DataFrame(
        {
            names.CELL_TYPE: labels,
            names.CELL_TYPE_ID: [terms.get(label, names.UNKNOWN) for label in labels],
        }
    )


def test_classes_stand_beside_their_relatives_and_those_without_term_last():
    cells = make_cells(cd8=5, mystery=5, b=5, cd4=5)
    found = [one.label for one in choose_classes(cells, 1)]
    assert found[-1] == "mystery"
    assert abs(found.index("cd4") - found.index("cd8")) == 1


def test_small_classes_and_unlabelled_cells_are_no_classes():
    cells = make_cells(b=10, cd4=10, cd8=2, unknown=50)
    found = choose_classes(cells, 3)
    assert {one.label: one.n_train for one in found} == {"b": 10, "cd4": 10}


def test_one_class_is_an_error_that_names_the_knobs():
    with pytest.raises(InputError, match="make 1 classes of at least 3 cells"):
        choose_classes(make_cells(b=10, cd4=2), 3)
    with pytest.raises(InputError, match="0 labelled training cells"):
        choose_classes(make_cells(unknown=10), 3)


@pytest.mark.parametrize("max_repeats", [0, 2, 100])
def test_every_class_counts_alike_and_the_mean_weight_is_one(max_repeats):
    classes = choose_classes(make_cells(b=90, cd4=10), 1)
    repeats_c = repeat_classes(classes, max_repeats)
    weight = weigh_classes(classes, repeats_c)
    n = np.array([one.n_train for one in classes]) * repeats_c
    np.testing.assert_allclose((weight * n)[0], (weight * n)[1], rtol=1e-6)
    np.testing.assert_allclose((weight * n).sum() / n.sum(), 1, rtol=1e-6)


def test_no_rare_class_takes_over_a_gradient():
    classes = choose_classes(make_cells(b=100_000, cd4=5), 1)
    weight = weigh_classes(classes, repeat_classes(classes, 0))
    assert weight.max() / weight.min() < 50


def test_classes_are_drawn_alike_as_far_as_repeats_allow():
    classes = choose_classes(make_cells(b=80, cd4=10, cd8=6), 1)
    by_label = {one.label: n for one, n in zip(classes, repeat_classes(classes, 4), strict=True)}
    assert by_label == pytest.approx({"b": 0.4, "cd4": 3.2, "cd8": 4})


def test_rare_cells_are_repeated_in_training(atlas, encoder, tmp_path):
    folder = finetune(atlas, encoder, tmp_path, max_repeats=3)
    value = read_json(folder / "scores.json")["methods"]["tabnet"]["macro_f1"]["value"]
    assert value > 0.8


def test_validation_counts_all_classes_alike_however_often_cells_are_drawn(
    atlas, encoder, tmp_path, monkeypatch
):
    def make_rarer(*given):
        return [replace(one, n_train=10 * 3**n) for n, one in enumerate(choose_classes(*given))]

    monkeypatch.setattr(stage, "choose_classes", make_rarer)
    chosen = FinetuneSettings(epochs=1, threads=1, max_repeats=100)
    found = stage.train_classifier(encoder, atlas.pack, chosen, tmp_path)
    rows = found.cells.validation_rows
    label_n, logits_nc = found.task.predict_rows(found.cells.validation, rows)
    weight_n = weigh_classes(found.classes, repeat_classes(found.classes, 0))[label_n]
    wanted = np.mean(weight_n * cross_entropy(logits_nc, label_n, reduction="none").numpy())
    assert found.task.validate()["validation_loss"] == pytest.approx(wanted, rel=1e-6)


def test_temperature_brings_overconfident_probabilities_down():
    rng = np.random.default_rng(0)
    logits_nc = rng.normal(size=(4000, 3))
    probability_nc = calibrate(logits_nc, 1.0)
    label_n = np.array([rng.choice(3, p=row) for row in probability_nc])
    assert fit_temperature(5 * logits_nc, label_n) == pytest.approx(5, rel=0.1)
    np.testing.assert_allclose(calibrate(5 * logits_nc, 5.0), probability_nc)
    assert fit_temperature(logits_nc[:0], label_n[:0]) == 1.0


def test_an_encoder_of_another_pack_with_the_same_genes_is_refused(atlas, encoder, tmp_path):
    """Another pack may have the same genes and other cells: the encoder may have seen the test."""
    about = read_json(atlas.pack)
    other = seal(about | {"plan": {"block_cells": 7, "buffer_cells": 70}})
    other["folder"] = str(atlas.pack.parent / about["folder"])
    (tmp_path / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(IntegrityError, match="trained on another pack"):
        finetune(atlas, encoder, tmp_path, pack=tmp_path / "manifest.json")
