"""The stage on a small atlas with a screen, and on screens outside it."""

import json
import shutil
import weakref

import numpy as np
import pandas as pd
import pytest

from screen_atlas import list_perturbations, make_foreign_screen, make_screen_atlas, train_encoder
from tabatlas import names
from tabatlas.errors import ConfigError, IntegrityError
from tabatlas.perturb import stage
from tabatlas.perturb.heads import predict_effect
from tabatlas.perturb.records import read_heads
from tabatlas.perturb.screens import split_targets
from tabatlas.provenance import digest_file, read_json

FILES = {"heads.json", "model.safetensors", "predictions.parquet", "scores.json"}
KNOBS = {"threads": 1, "n_masks": 2, "n_control_cells": 8, "n_random": 3}
ROW = {
    "dataset_id": "outside",
    "path": "screen.h5ad",
    "perturbation": "guide",
    "strategy": "kind",
    "cell_line": "line",
}


@pytest.fixture(scope="module")
def screen_atlas(tmp_path_factory):
    return make_screen_atlas(tmp_path_factory.mktemp("screen_atlas"))


@pytest.fixture(scope="module")
def encoder(screen_atlas, tmp_path_factory):
    return train_encoder(screen_atlas, tmp_path_factory.mktemp("encoder"))


def predict(atlas, encoder, folder, perturbations=None, screens=(), **knobs):
    """Run the stage; return its folder."""
    folder.mkdir(exist_ok=True, parents=True)
    settings = folder / "perturb.json"
    settings.write_text(json.dumps(KNOBS | knobs))
    stage.predict(
        encoder,
        atlas.pack,
        atlas.manifest,
        atlas.cells,
        perturbations or atlas.folder / "split" / "perturbations.parquet",
        atlas.proof,
        [path.with_suffix(".h5ad") for path in screens],
        [path.with_suffix(".json") for path in screens],
        settings,
        folder / "out",
    )
    return folder / "out"


def read_screen(folder, scale="log"):
    """Read a foreign screen as the workflow does; return its facts' path."""
    source = make_foreign_screen(folder / "source.h5ad", scale)
    (folder / "perturb.json").write_text(json.dumps(KNOBS | {"datasets": [ROW]}))
    (folder / "fetch.json").write_text("{}")
    settings = folder / "perturb.json", folder / "fetch.json"
    stage.read("outside", *settings, [source], folder / "outside.h5ad", folder / "outside.json")
    return folder / "outside.json"


@pytest.fixture(scope="module")
def model(screen_atlas, encoder, tmp_path_factory):
    return predict(screen_atlas, encoder, tmp_path_factory.mktemp("perturb"))


@pytest.fixture(scope="module")
def scores(model):
    return read_json(model / "scores.json")


@pytest.fixture(scope="module")
def sets(scores):
    (screen,) = scores["screens"]
    return {one["name"]: one for one in screen["sets"]}


def test_doubles_that_are_sums_are_predicted_nearly_as_well_as_by_other_cells(sets):
    doubles = sets["doubles"]
    assert doubles["n_perturbations"] == 5
    assert doubles["can_rank"]
    ours = doubles["methods"]["centered_additive"]["pearson_perturbed"]
    assert ours["rescaled"]["value"] > 0.8
    assert doubles["comparisons"]["mean"]["pearson_perturbed"]["low"] > 0
    assert doubles["own"] == "centered_additive"
    assert doubles["head"] == "centered additive"


def test_singles_of_an_atlas_screen_are_those_of_fold_0(screen_atlas, sets):
    folds = pd.read_parquet(screen_atlas.folder / "split" / "perturbations.parquet")
    single = folds["n_targets"] == 1
    held_out = folds.loc[single & (folds["fold"] == 0), names.PERTURBATION_ID]
    assert sorted(sets["singles"]["perturbations"]) == sorted(held_out)
    assert sets["singles"]["n_known_singles"] == [int(single.sum()) - len(held_out)]


def test_singles_without_a_shared_program_are_not_credited_to_the_network(sets):
    assert sets["singles"]["head"] == "kernel ridge"


def test_target_genes_are_not_scored(model, sets):
    table = pd.read_parquet(model / "predictions.parquet")
    genes = table.groupby(names.FEATURE_ID, observed=True)["scored"].first()
    assert (~genes).sum() == 12
    assert sets["doubles"]["n_scored_genes"] == genes.sum() == 48


def test_every_method_is_scored_or_says_why_not(sets):
    for one in sets.values():
        named = set(one["methods"]) | set(one["not_run"])
        assert len(one["methods"]) + len(one["not_run"]) == len(named) == 11


def test_the_stored_head_gives_the_stages_own_predictions(model):
    ((about, head),) = read_heads(model)
    table = pd.read_parquet(model / "predictions.parquet")
    doubles = table[table["set"] == "doubles"]
    assert sorted(about["targets"]) == sorted(list_perturbations()[:12])
    for perturbation, rows in doubles.groupby("perturbation", observed=True):
        effect = predict_effect(head, split_targets(perturbation), {})
        assert list(rows[names.FEATURE_ID]) == about["genes"]
        np.testing.assert_allclose(effect, rows["predicted_effect"], atol=1e-5)


def test_two_runs_give_the_same_bytes(screen_atlas, encoder, model, tmp_path):
    again = predict(screen_atlas, encoder, tmp_path)
    assert {path.name for path in model.iterdir()} == FILES
    for name in FILES:
        assert digest_file(model / name) == digest_file(again / name), name


def test_no_cell_that_training_read_is_held_out(screen_atlas, scores):
    audit = scores["audit"]
    cells = pd.read_parquet(screen_atlas.cells)
    held_out = cells["reason"] == "held-out perturbation"
    assert audit["n_held_out_cells"] == held_out.sum() > 0
    assert audit["n_train_cells"] == (cells[names.SPLIT] == "train").sum()
    assert audit["n_leaked_cells"] == audit["n_leaked_perturbations"] == 0


def test_a_perturbation_that_trained_ends_in_code_4(screen_atlas, encoder, tmp_path):
    """Folds of another split than that of the pack: what is held out now was read."""
    folds = pd.read_parquet(screen_atlas.folder / "split" / "perturbations.parquet")
    other = tmp_path / "perturbations.parquet"
    folds.assign(fold=0).to_parquet(other)
    with pytest.raises(IntegrityError, match="cells of the pack are of held-out pert") as caught:
        predict(screen_atlas, encoder, tmp_path, perturbations=other)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out" / "scores.json").exists()


def test_an_encoder_of_another_pack_is_refused(screen_atlas, atlas, tmp_path):
    other = train_encoder(atlas, tmp_path, epochs=0)
    with pytest.raises(IntegrityError, match=r"trained on another pack"):
        predict(screen_atlas, other, tmp_path)


def test_shuffled_perturbations_are_not_predicted(screen_atlas, encoder, tmp_path, monkeypatch):
    """Were the truth known to the prediction by any other way, this would stay high."""
    real = stage.find_atlas_units

    def shuffle(*arguments):
        for unit in real(*arguments):
            np.random.default_rng(0).shuffle(unit.id_n)
            yield unit

    monkeypatch.setattr(stage, "find_atlas_units", shuffle)
    (screen,) = read_json(predict(screen_atlas, encoder, tmp_path) / "scores.json")["screens"]
    doubles = next(one for one in screen["sets"] if one["name"] == "doubles")
    assert doubles["methods"]["centered_additive"]["pearson_perturbed"]["value"] < 0.4
    assert not doubles["can_rank"]
    assert doubles["best"] is None


def test_an_atlas_without_a_screen_has_valid_files(atlas, tmp_path):
    encoder = train_encoder(atlas, tmp_path, epochs=1)
    folder = predict(atlas, encoder, tmp_path)
    assert {path.name for path in folder.iterdir()} == FILES
    assert read_json(folder / "scores.json")["screens"] == []
    assert read_heads(folder) == []
    assert not len(pd.read_parquet(folder / "predictions.parquet"))


def test_an_encoder_that_learnt_nothing_embeds_nothing(screen_atlas, tmp_path):
    encoder = train_encoder(screen_atlas, tmp_path, epochs=0)
    (screen,) = read_json(predict(screen_atlas, encoder, tmp_path) / "scores.json")["screens"]
    assert len(screen["targets_without_embedding"]) == screen["n_targets"] == 12
    singles = next(one for one in screen["sets"] if one["name"] == "singles")
    gain = singles["comparisons"]["mean"]["mse"]
    assert gain["low"] == gain["high"] == 0


def test_a_screen_outside_is_scored_by_cell_line_on_all_folds(screen_atlas, encoder, tmp_path):
    facts = read_screen(tmp_path)
    found = read_json(facts)
    assert (found["expression"], found["n_mapped"], found["n_dropped_genes"]) == (
        "log-normalized",
        59,
        1,
    )
    folder = predict(screen_atlas, encoder, tmp_path / "run", screens=[facts], min_cells=10)
    screens = read_json(folder / "scores.json")["screens"]
    outside = [one for one in screens if one["origin"] == "outside"]
    assert [one["cell_line"] for one in outside] == ["left", "right"]
    for one in outside:
        singles = next(test for test in one["sets"] if test["name"] == "singles")
        assert sorted(singles["perturbations"]) == sorted(list_perturbations()[:12])
        assert singles["n_known_singles"] == [6, 6]
    assert len(read_heads(folder)) == 3


def test_a_unit_is_let_go_before_the_next_and_its_effects_are_written(
    screen_atlas, encoder, tmp_path, monkeypatch
):
    """What a unit reads from may be a whole screen."""
    real, units, alive = stage.list_units, [], []

    def watch(unit):
        alive.append(sum(one() is not None for one in units))
        units.append(weakref.ref(unit))
        return unit

    monkeypatch.setattr(stage, "list_units", lambda *arguments: map(watch, real(*arguments)))
    facts = read_screen(tmp_path)
    folder = predict(screen_atlas, encoder, tmp_path / "run", screens=[facts], min_cells=10)
    assert alive == [0, 0, 0]
    table = pd.read_parquet(folder / "predictions.parquet")
    assert set(table["cell_line"]) == {"line", "left", "right"}
    for column in ("screen", "cell_line", "set", "perturbation", names.FEATURE_ID):
        assert isinstance(table[column].dtype, pd.CategoricalDtype)


def test_the_zero_of_the_rescaled_score_is_the_better_constant(sets):
    doubles = sets["doubles"]
    errors = {name: doubles["methods"][name]["mse"]["value"] for name in ("mean", "scaled_mean")}
    assert doubles["baseline"] == min(errors, key=errors.get)
    for metric in ("mse", "weighted_mse", "pearson_control"):
        assert doubles["methods"][doubles["baseline"]][metric]["rescaled"]["value"] == 0
    for name in ("no_change", "mean", "scaled_mean"):
        assert doubles["methods"][name]["pearson_perturbed"]["value"] == 0
    assert sets["singles"]["baseline"] == "mean"
    assert "scaled_mean" in sets["singles"]["not_run"]


def test_a_unit_of_too_few_cells_says_so(screen_atlas, encoder, tmp_path):
    folder = predict(screen_atlas, encoder, tmp_path, min_cells=1000)
    (screen,) = read_json(folder / "scores.json")["screens"]
    assert "80 control cells and 0 single perturbations" in screen["skipped"]
    assert screen["n_too_few_cells"] == 17
    assert read_heads(folder) == []


def test_a_screen_that_no_row_names_is_an_error(tmp_path):
    (tmp_path / "perturb.json").write_text("{}")
    settings = tmp_path / "perturb.json", tmp_path / "fetch.json"
    with pytest.raises(ConfigError, match=r"--screen x: perturb\.datasets has no such row"):
        stage.read("x", *settings, [], tmp_path / "x.h5ad", tmp_path / "x.json")


def test_a_damaged_head_is_refused(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        read_heads(tmp_path / "copy")
