"""Covariates on their way from the cell table to the network."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tabatlas import names
from tabatlas.errors import ConfigError
from tabatlas.experiment import open_experiment
from tabatlas.finetune import stage as finetune
from tabatlas.pretrain import stage as pretrain
from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.provenance import read_json
from tabatlas.stream.columns import Cells, encode_cells
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource
from tabatlas.tabnet.covariates import Covariate, Covariates
from tabatlas.train.covariates import describe_covariates
from tabatlas.train.model import read_model, restore_encoder
from tabatlas.train.predict import forget_levels

WISHES = [
    {"column": "dataset_id", "as": "condition", "width": 3},
    {"column": names.PCT_MT, "as": "input"},
    {"column": "donor", "as": "input", "width": 2},
]


def wish(column, role="input", width=2):
    return SimpleNamespace(column=column, role=role, width=width)


def cells_of(table):
    """The columns of a source's cells, from a table that has a few of them."""
    needed = {names.CELL_TYPE: "T cell", names.JOINID: range(len(table))}
    return Cells(*encode_cells(table.assign(**needed)), (), ())


def test_levels_and_statistics_are_those_of_the_training_cells():
    cells = pd.DataFrame({"assay": ["b", "a", names.UNKNOWN, "b"], names.PCT_MT: [0.0, 2, 4, 2]})
    wishes = [wish("assay", "condition"), wish(names.PCT_MT)]
    assay, mito = describe_covariates(wishes, cells_of(cells))
    assert assay == Covariate("assay", "condition", ("a", "b"), 2)
    assert (mito.levels, mito.mean, mito.deviation) == ((), 2, pytest.approx(2**0.5))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("disease", [names.UNKNOWN] * 2, "`disease` is unknown in every training cell"),
        (names.PCT_MT, [3.0, 3.0], "`pct_counts_mt` is 3 in every training cell"),
    ],
)
def test_a_column_that_tells_nothing_is_refused(column, values, message):
    with pytest.raises(ConfigError, match=message):
        describe_covariates([wish(column)], cells_of(pd.DataFrame({column: values})))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ([{"column": "assay", "as": "input"}, {"column": "assay", "as": "condition"}], "twice"),
        ([{"column": "cell_type", "as": "input"}], "cell_type"),
        ([{"column": "assay", "as": "batch"}], "batch"),
    ],
)
def test_a_wrong_covariate_is_an_error_of_the_configuration(wishes, message):
    with pytest.raises(ConfigError, match=message):
        PretrainSettings.parse({"covariates": wishes}, "test")


def test_levels_are_forgotten_at_random_and_numbers_are_not():
    known = Covariates(torch.ones(2000, 3, dtype=torch.int64), torch.ones(2000, 1))
    generator = torch.Generator().manual_seed(0)
    level_nk, number_nj = forget_levels(known, 0.25, generator)
    assert (level_nk == 0).float().mean(0) == pytest.approx([0.25] * 3, abs=0.03)
    assert number_nj is known.number_nj


def test_both_sources_give_the_same_covariates(atlas):
    settings = PretrainSettings.parse({"covariates": WISHES}, "test")
    cells = PackedSource(atlas.pack, "train").cells
    covariates = describe_covariates(settings.covariates, cells)
    packed = PackedSource(atlas.pack, "validation", covariates=covariates)
    rows = np.argsort(packed.joinid_n)
    first = packed.read(rows)
    with open_experiment(atlas.manifest) as experiment:
        genes = packed.genes[names.FEATURE_ID]
        soma = SomaSource(experiment, packed.joinid_n[rows], genes, covariates=covariates)
        second = soma.read(np.arange(len(soma)))
    assert torch.equal(first.level, second.level)
    assert torch.equal(first.number, second.number)
    # A donor of the validation never trained.
    assert first.level.shape[1] == 2
    assert not first.level[:, 1].any()
    assert first.level[:, 0].any()


@pytest.fixture(scope="module")
def models(atlas, tmp_path_factory):
    """An encoder that knows covariates, and a classifier made from it."""
    folder = tmp_path_factory.mktemp("covariates")
    small = {"n_d": 8, "n_a": 8, "n_steps": 1}
    knobs = {"epochs": 3, "batch_size": 32, "threads": 1}
    (folder / "pretrain.json").write_text(
        json.dumps(knobs | {"architecture": small, "covariates": WISHES})
    )
    (folder / "finetune.json").write_text(json.dumps(knobs | {"epochs": 15, "learning_rate": 0.01}))
    checkpoints = folder / "checkpoints"
    pretrain.run(atlas.pack, folder / "pretrain.json", checkpoints, folder / "encoder")
    inputs = (atlas.pack, atlas.manifest, atlas.cells, atlas.proof, folder / "finetune.json")
    finetune.run(folder / "encoder", *inputs, checkpoints, folder / "classifier")
    return folder


def test_a_model_carries_its_covariates_to_later_stages(models):
    encoder, classifier = read_model(models / "encoder"), read_model(models / "classifier")
    assert encoder.covariates == classifier.covariates
    assert [one.name for one in encoder.covariates] == ["dataset_id", names.PCT_MT, "donor"]
    generator = torch.Generator().manual_seed(0)
    table = restore_encoder(encoder, generator).conditions.table.weight
    assert table.shape == (1 + len(encoder.covariates[0].levels), 3)
    assert torch.equal(table, encoder.tensors["encoder/conditions.table.weight"])


def test_donors_that_never_trained_are_tested_all_the_same(models):
    scores = read_json(models / "classifier" / "scores.json")
    assert scores["n_test_cells"] > 0
    assert scores["methods"]["tabnet"]["macro_f1"]["value"] > 0.5
