import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from tabatlas.errors import IntegrityError, ModelError
from tabatlas.pretrain import stage
from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.provenance import digest_file, read_json
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.architecture import PRESETS
from tabatlas.tabnet.entries import GeneSets
from tabatlas.train.device import seed_generator
from tabatlas.train.model import read_model
from tabatlas.train.predict import GROUP, draw_hidden

SMALL = {"n_d": 8, "n_a": 8, "n_steps": 1}


def pretrain(atlas, folder, **knobs):
    """Run the stage; return the model's folder."""
    chosen = {"architecture": SMALL, "epochs": 20, "batch_size": 32, "threads": 1} | knobs
    settings = folder / "pretrain.json"
    settings.write_text(json.dumps(chosen))
    stage.run(atlas.pack, settings, folder / "checkpoints", folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(atlas, tmp_path_factory):
    return pretrain(atlas, tmp_path_factory.mktemp("pretrain"))


def test_hidden_genes_are_predicted_better_than_by_their_mean(model):
    scores = read_json(model / "scores.json")
    assert scores["ratio"] < 0.9
    assert scores["ratio"] == scores["masked_loss"] / scores["gene_mean_loss"]


def test_metrics_hold_one_row_of_each_kind_per_epoch(model):
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "train_loss" in row] == list(range(20))
    assert [row["epoch"] for row in rows if "validation_loss" in row] == list(range(20))
    assert {row["gene_mean_loss"] for row in rows if "gene_mean_loss" in row} == {
        read_json(model / "scores.json")["gene_mean_loss"]
    }


def test_the_model_carries_its_genes_and_architecture(atlas, model):
    found = read_model(model)
    genes = PackedSource(atlas.pack, "train").genes
    pd.testing.assert_frame_equal(found.genes, genes)
    assert found.architecture.n_d == 8
    assert found.about["organism"] == "Homo sapiens"
    assert {name.split("/")[0] for name in found.tensors} == {"encoder", "decoder"}


def test_two_runs_give_the_same_bytes(atlas, model, tmp_path):
    again = pretrain(atlas, tmp_path)
    for path in model.iterdir():
        assert digest_file(path) == digest_file(again / path.name), path.name


def test_zero_epochs_write_a_valid_initialised_encoder(atlas, tmp_path):
    found = read_model(pretrain(atlas, tmp_path, epochs=0))
    assert all(torch.isfinite(tensor).all() for tensor in found.tensors.values())
    scores = read_json(tmp_path / "model" / "scores.json")
    assert scores["epochs"] == 0
    # The decoder starts at zero, which is the gene's mean.
    assert scores["ratio"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["model.safetensors", "genes.parquet", "config.json"])
def test_a_missing_file_of_a_model_is_named(atlas, model, tmp_path, name):
    for path in model.iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=f"{name}: this file of the model is missing"):
        read_model(tmp_path)


def test_genes_of_another_model_are_refused(model, tmp_path):
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    genes = pd.read_parquet(model / "genes.parquet")
    genes.iloc[::-1].to_parquet(tmp_path / "genes.parquet", index=False)
    with pytest.raises(IntegrityError, match="not the genes of"):
        read_model(tmp_path)


def test_knobs_of_the_network_replace_those_of_the_preset():
    settings = PretrainSettings.parse({"preset": "sctab", "architecture": {"n_d": 16}}, "test")
    chosen = settings.choose_architecture()
    assert chosen.n_d == 16
    assert chosen.n_independent == PRESETS["sctab"].n_independent


def test_genes_are_hidden_by_coin_flips_and_never_all_of_a_cell():
    missing_mg = torch.zeros(2, 50, dtype=torch.bool)
    missing_mg[1, :10] = True
    missing = GeneSets(torch.arange(4000) % 2, missing_mg)
    hidden, drawn = (
        sets.to_dense() for sets in draw_hidden(missing, 0.5, torch.Generator().manual_seed(0))
    )
    assert torch.equal(hidden, drawn | missing.to_dense())
    assert not (drawn & missing.to_dense()).any()
    np.testing.assert_allclose(drawn[:, 10:].float().mean(), 0.5, atol=0.02)
    # Cells of one group hide the same, others do not.
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[-2])
    nearly_all, _ = draw_hidden(missing, 0.999, torch.Generator().manual_seed(0))
    assert (~nearly_all.member_mg).any(dim=1).all()


def test_sets_of_hidden_genes_are_few_however_many_datasets_there_are():
    generator = torch.Generator().manual_seed(0)
    n_cells, n_datasets = 1024, 64
    set_n = torch.randint(n_datasets, (n_cells,), generator=generator)
    missing = GeneSets(set_n, torch.rand(n_datasets, 50, generator=generator) < 0.2)
    hidden, drawn = draw_hidden(missing, 0.5, generator)
    assert len(hidden.member_mg) <= n_cells // GROUP + n_datasets
    assert drawn.set_n.bincount().max() <= GROUP
    assert (hidden.to_dense() >= missing.to_dense()).all()


def test_unmeasured_genes_have_no_part_in_the_loss(atlas):
    """Counts written over genes that a cell's dataset did not measure change nothing."""
    knobs = {"architecture": SMALL, "lambda_sparse": 0.0}
    train, validation = (PackedSource(atlas.pack, part) for part in ("train", "validation"))
    task = stage.build_task(
        PretrainSettings.parse(knobs, "test"), train, validation, torch.device("cpu")
    )
    # The decoder starts at zero, where no input would matter.
    torch.nn.init.normal_(task.model["decoder"].genes.weight, generator=seed_generator("cpu", 1))
    task.model.eval()
    rows = np.flatnonzero(~train.presence.numpy()[train.cells.columns["dataset"]].all(axis=1))[:10]
    minibatch = train.read(rows)

    def score(values_ng):
        changed = sp.csr_matrix(values_ng)
        arrays = (changed.indptr.astype(np.int64), changed.indices, changed.data)
        indptr, gene, count = map(torch.from_numpy, arrays)
        written = replace(minibatch, indptr=indptr, gene=gene, count=count)
        inputs = task.draw(written, seed_generator("cpu", 0))
        return task.loss(inputs, task.sizes(inputs)).item()

    counts_ng = minibatch.to_csr(train.n_genes).toarray()
    measured_ng = train.presence.numpy()[minibatch.dataset]
    unmeasured, measured = counts_ng.copy(), counts_ng.copy()
    unmeasured[~measured_ng] = 500
    measured[measured_ng] += 500
    assert score(unmeasured) == score(counts_ng)
    assert score(measured) != score(counts_ng)
