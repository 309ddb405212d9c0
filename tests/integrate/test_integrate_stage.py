"""The stage on the small atlas: what it writes, and what its embedding is of."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiledbsoma
import torch

from tabatlas import names
from tabatlas.errors import ModelError
from tabatlas.experiment import open_experiment
from tabatlas.integrate import stage
from tabatlas.integrate.model import restore_embedder
from tabatlas.pretrain import stage as pretrain
from tabatlas.provenance import digest_file, read_json
from tabatlas.stream.soma import SomaSource
from tabatlas.train.model import read_model
from tabatlas.train.predict import open_inputs

N_LATENT = 6


@pytest.fixture(scope="module")
def encoder(atlas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    small = {"n_d": 8, "n_a": 8, "n_steps": 1}
    knobs = {"architecture": small, "epochs": 2, "threads": 1, "batch_size": 32}
    (folder / "pretrain.json").write_text(json.dumps(knobs))
    pretrain.run(atlas.pack, folder / "pretrain.json", folder / "checkpoints", folder / "model")
    return folder / "model"


def integrate(atlas, encoder, folder, manifest=None, **knobs):
    """Run the stage; return the folder of its results."""
    # 150 cells: few steps, and every gene is needed to tell their types.
    small = {
        "epochs": 10,
        "batch_size": 32,
        "n_latent": N_LATENT,
        "hidden_ratio": 0,
        "kl_weight": 1,
    }
    chosen = {"threads": 1} | small | knobs
    settings = folder / "integrate.json"
    settings.write_text(json.dumps(chosen))
    stage.run(
        encoder,
        atlas.pack,
        manifest or atlas.manifest,
        settings,
        folder / "checkpoints",
        folder / "results" / "embedding.parquet",
        folder / "results" / "layout.parquet",
        folder / "results",
    )
    return folder / "results"


@pytest.fixture(scope="module")
def results(atlas, encoder, tmp_path_factory):
    return integrate(atlas, encoder, tmp_path_factory.mktemp("integrate"))


def test_every_cell_of_the_experiment_is_embedded_once(atlas, results):
    table = pd.read_parquet(results / "embedding.parquet")
    with open_experiment(atlas.manifest) as experiment:
        obs = experiment.read_obs([names.OBS_ID])
    pd.testing.assert_frame_equal(
        table[[names.JOINID, names.OBS_ID]], obs[[names.JOINID, names.OBS_ID]], check_dtype=False
    )
    assert list(table.columns[2:]) == [f"z{number}" for number in range(N_LATENT)]
    assert np.isfinite(table.iloc[:, 2:].to_numpy()).all()


def test_types_lie_apart_in_the_embedding(atlas, results):
    table = pd.read_parquet(results / "embedding.parquet").set_index(names.JOINID)
    with open_experiment(atlas.manifest) as experiment:
        label_n = experiment.read_obs([names.CELL_TYPE])[names.CELL_TYPE].astype(str)
    place_nz = table.drop(columns=names.OBS_ID).to_numpy()
    distance_nn = ((place_nz[:, None] - place_nz[None]) ** 2).sum(-1)
    np.fill_diagonal(distance_nn, np.inf)
    same = label_n.to_numpy()[distance_nn.argmin(axis=1)] == label_n
    assert same.mean() > 0.75  # 0.84 to 0.99 over seeds; a third by chance


def test_the_model_alone_gives_the_embedding(atlas, results):
    model = read_model(results)
    embedder = restore_embedder(model).eval()
    table = pd.read_parquet(results / "embedding.parquet")
    with open_experiment(atlas.manifest) as experiment:
        source = SomaSource(experiment, np.arange(40), model.genes[names.FEATURE_ID])
        x, missing, _ = open_inputs(source.read(np.arange(len(source))), source.presence)
    with torch.inference_mode():
        mean_nz, _ = embedder(x, missing)
    np.testing.assert_allclose(mean_nz, table.iloc[:40, 2:], atol=1e-5)


def test_conditions_that_never_vary_are_left_out(results):
    # The small atlas has one assay and no disease.
    about = read_json(results / "config.json")
    assert [one["name"] for one in about["conditions"]] == ["batch"]
    assert about["n_latent"] == N_LATENT


def test_scores_stand_beside_those_of_other_methods(results):
    scores = read_json(results / "scores.json")
    assert scores["methods"].keys() == {"tabnet", "pca", "harmony_pca", "harmony_tabnet", "random"}
    assert scores["methods"]["tabnet"]["total"] > scores["methods"]["random"]["total"]
    layout = pd.read_parquet(results / "layout.parquet")
    assert len(layout) == scores["n_cells"]


def test_two_runs_give_the_same_bytes(atlas, encoder, results, tmp_path):
    again = integrate(atlas, encoder, tmp_path)
    for path in results.iterdir():
        assert digest_file(path) == digest_file(again / path.name), path.name


def test_the_embedding_stands_in_the_experiment_where_that_is_asked_for(atlas, encoder, tmp_path):
    copied = shutil.copytree(atlas.manifest.parent, tmp_path / "ingest")
    manifest = copied / "manifest.json"
    knobs = {"obsm": "X_tabatlas", "epochs": 0}
    results = integrate(atlas, encoder, tmp_path, manifest, **knobs)
    table = pd.read_parquet(results / "embedding.parquet")
    with open_experiment(manifest) as experiment:
        uri = experiment.soma.uri
        # What the manifest seals stays as it is.
        assert "obsm" not in experiment.soma.ms[names.MEASUREMENT]
    with tiledbsoma.Experiment.open(uri) as soma:
        stored = soma.ms[names.MEASUREMENT]["obsm"]["X_tabatlas"].read().to_numpy()
    np.testing.assert_array_equal(stored, table.iloc[:, 2:].to_numpy())
    integrate(atlas, encoder, tmp_path, manifest, **knobs)  # again, in its place
    with pytest.raises(ModelError, match="X_tabatlas: the experiment has one of shape"):
        integrate(atlas, encoder, tmp_path, manifest, **knobs | {"n_latent": N_LATENT + 1})
