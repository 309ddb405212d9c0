import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from small_atlas import UNMEASURED
from synthetic import gene_ids
from tabatlas import names
from tabatlas.errors import ConfigError, IntegrityError
from tabatlas.explain import markers as explain_markers
from tabatlas.explain import stage
from tabatlas.explain.attribution import name_inputs
from tabatlas.finetune import stage as finetune
from tabatlas.genes import GeneMapping
from tabatlas.pretrain import stage as pretrain
from tabatlas.provenance import digest_file, read_json
from tabatlas.train.model import read_model, restore_classifier
from tabatlas.train.tensors import digest_tensors, pick

TRAINING = {"epochs": 15, "batch_size": 32, "threads": 1, "learning_rate": 0.01}
OUTPUTS = ("masks.parquet", "importances.parquet", "types.parquet", "steps.parquet", "scores.json")
N_STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def known_genes():
    """The small atlas's genes are those of no organism."""

    def take_ids(names, organism):
        return GeneMapping("ensembl", np.array(list(names), dtype=object))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain_markers, "map_names", take_ids)
        yield


@dataclass(frozen=True)
class Study:
    """A classifier of the small atlas, and one replicate of it."""

    atlas: object
    folder: Path

    def replicate(self, seed: int, name: str, **knobs: object) -> Path:
        training = self.folder / f"{name}.json"
        training.write_text(json.dumps(TRAINING | knobs))
        model = self.folder / name
        checkpoints = self.folder / "replicated"
        encoder = self.folder / "encoder"
        stage.replicate(seed, encoder, self.atlas.pack, training, checkpoints, model)
        return model

    def attribute(self, folder: Path, markers=(), replicates=("one",), **knobs: object) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "explain.json").write_text(json.dumps(knobs))
        stage.attribute(
            self.folder / "classifier",
            [self.folder / name for name in replicates],
            self.atlas.pack,
            self.atlas.manifest,
            self.atlas.cells,
            list(markers),
            self.folder / "finetune.json",
            folder / "explain.json",
            *(folder / name for name in OUTPUTS),
        )
        return folder


@pytest.fixture(scope="module")
def study(atlas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    knobs = {"architecture": {"n_d": 8, "n_a": 8, "n_steps": N_STEPS}, "epochs": 2, "threads": 1}
    (folder / "pretrain.json").write_text(json.dumps(knobs | {"batch_size": 32}))
    checkpoints = folder / "checkpoints"
    pretrain.run(atlas.pack, folder / "pretrain.json", checkpoints, folder / "encoder")
    (folder / "finetune.json").write_text(json.dumps(TRAINING))
    given = (atlas.pack, atlas.manifest, atlas.cells, atlas.proof, folder / "finetune.json")
    finetune.run(folder / "encoder", *given, checkpoints, folder / "classifier")
    made = Study(atlas, folder)
    made.replicate(1, "one")
    return made


@pytest.fixture(scope="module")
def markers(tmp_path_factory):
    """The ten genes that each type of the small atlas expresses, and no other."""
    path = tmp_path_factory.mktemp("markers") / "markers.tsv"
    rows = [(f"type{n // 10}", gene) for n, gene in enumerate(gene_ids(30))]
    pd.DataFrame(rows, columns=["cell_type", "gene"]).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture(scope="module")
def explained(study, markers, tmp_path_factory):
    return study.attribute(tmp_path_factory.mktemp("explained"), [markers], cells_per_type=9)


@pytest.fixture(scope="module")
def scores(explained):
    return read_json(explained / "scores.json")


def test_a_replicate_with_the_seed_of_finetune_is_its_classifier(study):
    model, ours = study.replicate(0, "zero"), study.folder / "classifier"
    for name in ("labels.json", "metrics.jsonl", "config.json"):
        assert digest_file(model / name) == digest_file(ours / name), name
    # Who gets no label is learned for the classifier that is kept, and for no replicate.
    weights, own = (pick(read_model(one).tensors, "classifier") for one in (model, ours))
    assert digest_tensors(weights) == digest_tensors(own)


def test_a_replicate_that_goes_on_from_its_checkpoint_writes_the_same_bytes(study):
    model = study.replicate(2, "two")
    before = {path.name: digest_file(path) for path in model.iterdir()}
    assert {path.name: digest_file(path) for path in study.replicate(2, "two").iterdir()} == before


def test_another_seed_is_another_classifier_of_the_same_classes_and_genes(study):
    one, ours = study.folder / "one", study.folder / "classifier"
    assert digest_file(one / "model.safetensors") != digest_file(ours / "model.safetensors")
    for name in ("labels.json", "genes.parquet", "config.json"):
        assert digest_file(one / name) == digest_file(ours / name)
    assert read_json(one / "scores.json")["seed"] == 1


def test_masks_are_those_of_the_network_and_their_rows_sum_to_one(study, explained, scores):
    masks = pd.read_parquet(explained / "masks.parquet")
    assert (masks["mask"] > 0).all()
    assert scores["n_cells"] == masks[names.JOINID].nunique() == 27
    sums = masks.groupby([names.JOINID, "step"])["mask"].sum()
    assert len(sums) == 27 * N_STEPS
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_importances_are_aggregated_masks(explained):
    masks = pd.read_parquet(explained / "masks.parquet")
    importances = pd.read_parquet(explained / "importances.parquet")
    plain = masks.groupby([names.JOINID, "gene"])["mask"].sum() / N_STEPS
    found = importances.set_index([names.JOINID, "gene"]).sort_index()
    np.testing.assert_allclose(found["plain"], plain, atol=1e-6)
    np.testing.assert_allclose(found.groupby(names.JOINID)["weighted"].sum(), 1, atol=1e-5)
    assert not np.allclose(found["weighted"], found["plain"])


def test_the_importance_of_a_type_is_the_mean_over_its_rightly_named_cells(study, explained):
    experiment_cells = pd.read_parquet(study.folder / "classifier" / "predictions.parquet")
    right = experiment_cells[
        experiment_cells["predicted"] == experiment_cells[names.CELL_TYPE].astype(str)
    ]
    importances = pd.read_parquet(explained / "importances.parquet")
    types = pd.read_parquet(explained / "types.parquet").set_index([names.CELL_TYPE, "gene"])
    rows = {row["label"]: row for row in read_json(explained / "scores.json")["types"]}
    label = right.set_index(names.JOINID)[names.CELL_TYPE].astype(str)
    own = importances[importances[names.JOINID].map(label) == "type1"]
    if rows["type1"]["n_cells"] == rows["type1"]["n_sampled"]:
        wanted = own.groupby("gene")["weighted"].sum() / own[names.JOINID].nunique()
        everywhere = wanted.drop(list(UNMEASURED), errors="ignore")
        found = types.loc["type1", "weighted"].reindex(everywhere.index)
        np.testing.assert_allclose(found, everywhere, atol=1e-6)
    else:
        pytest.fail("the small atlas is no longer learned: this test compares nothing")


def test_steps_sum_up_to_types(explained):
    steps = pd.read_parquet(explained / "steps.parquet")
    types = pd.read_parquet(explained / "types.parquet")
    summed = steps.groupby([names.CELL_TYPE, "gene"])[["weighted", "plain"]].sum()
    wanted = types.set_index([names.CELL_TYPE, "gene"]).sort_index()
    np.testing.assert_allclose(summed, wanted[["weighted", "plain"]], atol=1e-9)


def test_a_gene_that_was_not_measured_has_no_mask(study, explained):
    """Dataset b measured neither of them; where others did, its cells are no part of the mean."""
    predictions = pd.read_parquet(study.folder / "classifier" / "predictions.parquet")
    of_b = predictions.loc[predictions[names.OBS_ID].str.startswith("b:"), names.JOINID]
    masks = pd.read_parquet(explained / "masks.parquet")
    own = masks[masks[names.JOINID].isin(of_b)]
    assert len(own)
    assert not own["gene"].isin(UNMEASURED).any()


def test_the_model_needs_the_genes_that_its_masks_name(scores):
    deletion = scores["deletion"]
    assert [row["n_hidden"] for row in deletion["curve"]] == [1, 2, 5, 10]
    assert deletion["mean"]["tabnet_over_control"]["value"] > 0


def test_logistic_regression_finds_genes_that_only_one_type_has(scores):
    methods = scores["markers"]["overall"]["methods"]
    assert methods["logistic_regression"]["auprc"] > 0.8
    assert methods["logistic_regression"]["matched"] < 0.6
    assert {"weighted", "plain", "logistic_regression_unsigned"} < set(methods)


def test_two_runs_give_the_same_bytes(study, explained, markers, tmp_path):
    again = study.attribute(tmp_path, [markers], cells_per_type=9)
    for name in OUTPUTS:
        assert digest_file(explained / name) == digest_file(again / name), name


def test_an_unstable_type_names_no_gene(study, tmp_path):
    folder = study.attribute(tmp_path, cells_per_type=9, min_stability=1.0)
    found = read_json(folder / "scores.json")
    rows = [row for row in found["types"] if not row["stable"]]
    assert rows
    assert all(row["stable_genes"] == [] for row in rows)
    unstable = {row["label"] for row in rows}
    assert not unstable & set(found["heatmaps"]["types"]["rows"])
    types = pd.read_parquet(folder / "types.parquet")
    assert not types.loc[types[names.CELL_TYPE].isin(unstable), "stable"].any()


def test_every_drawn_gene_is_stable(explained, scores):
    types = pd.read_parquet(explained / "types.parquet")
    stable = set(types.loc[types["stable"], names.FEATURE_NAME])
    for heatmap in scores["heatmaps"].values():
        assert set(heatmap["columns"]) <= stable
        assert len(heatmap["values"]) == len(heatmap["rows"])
        assert all(len(values) == len(heatmap["columns"]) for values in heatmap["values"])


def test_without_markers_nothing_is_said_about_them(study, tmp_path):
    found = read_json(study.attribute(tmp_path, cells_per_type=3) / "scores.json")
    assert found["markers"] is None
    assert all(row["markers"] is None for row in found["types"])


def test_without_labeled_test_cells_validation_cells_are_explained(study, atlas, tmp_path):
    cells = pd.read_parquet(atlas.cells)
    cells.loc[cells[names.SPLIT] == "test", names.SPLIT] = "excluded"
    cells.to_parquet(tmp_path / "cells.parquet")
    moved = Study(ChangedSplit(atlas, tmp_path / "cells.parquet"), study.folder)
    found = read_json(moved.attribute(tmp_path / "out", cells_per_type=3) / "scores.json")
    assert found["part"] == "validation"


@dataclass(frozen=True)
class ChangedSplit:
    """The small atlas with another split."""

    whole: object
    cells: Path

    def __getattr__(self, name):
        return getattr(self.whole, name)


def test_a_classifier_of_other_classes_is_no_replicate(study, tmp_path):
    study.replicate(1, "fewer", min_class_cells=1)
    labels = read_json(study.folder / "fewer" / "labels.json")
    (study.folder / "fewer" / "labels.json").write_text(json.dumps(labels[::-1]))
    with pytest.raises(IntegrityError, match="not a replicate"):
        study.attribute(tmp_path, replicates=["fewer"])


def test_a_missing_table_of_markers_is_named(study, tmp_path):
    with pytest.raises(ConfigError, match=r"none\.tsv: not a readable table of markers"):
        study.attribute(tmp_path, [tmp_path / "none.tsv"], cells_per_type=3)


def test_a_hidden_gene_has_no_influence_on_the_answer(study):
    """What the deletion test rests on: the answer without a gene, not with a zero in its place."""
    model = restore_classifier(read_model(study.folder / "classifier"), torch.Generator())
    x_ng = torch.rand(5, 60)
    hidden_ng = torch.zeros(5, 60, dtype=torch.bool)
    hidden_ng[:, 7] = True
    changed_ng = x_ng.clone()
    changed_ng[:, 7] += 3
    with torch.inference_mode():
        assert torch.equal(model(x_ng, hidden_ng)[0], model(changed_ng, hidden_ng)[0])
        assert not torch.equal(model(x_ng)[0], model(changed_ng)[0])


def test_covariates_that_are_inputs_have_their_share_of_the_importance(study, atlas, tmp_path):
    assert read_json_of(study, tmp_path / "without")["covariates"] == {}
    knobs = {
        "architecture": {"n_d": 8, "n_a": 8, "n_steps": N_STEPS},
        "epochs": 1,
        "threads": 1,
        "batch_size": 32,
        "covariates": [
            {"column": "donor", "as": "input", "width": 2},
            {"column": names.DATASET_ID, "as": "condition", "width": 2},
            {"column": names.PCT_MT, "as": "input"},
        ],
    }
    (tmp_path / "pretrain.json").write_text(json.dumps(knobs))
    (tmp_path / "finetune.json").write_text(json.dumps(TRAINING | {"epochs": 2}))
    checkpoints = tmp_path / "checkpoints"
    pretrain.run(atlas.pack, tmp_path / "pretrain.json", checkpoints, tmp_path / "encoder")
    given = (atlas.pack, atlas.manifest, atlas.cells, atlas.proof, tmp_path / "finetune.json")
    finetune.run(tmp_path / "encoder", *given, checkpoints, tmp_path / "classifier")
    told = Study(atlas, tmp_path)
    told.replicate(1, "one", epochs=2)
    found = read_json_of(told, tmp_path / "out")
    model = restore_classifier(read_model(tmp_path / "classifier"), torch.Generator())
    # The order of the masks: the donor is the one with two columns.
    assert name_inputs(model) == [names.PCT_MT, "donor"]
    assert model.encoder.inputs.widths == [1, 2]
    assert set(found["covariates"]) == {names.PCT_MT, "donor"}
    assert all(share > 0 for share in found["covariates"].values())
    importances = pd.read_parquet(tmp_path / "out" / "importances.parquet")
    of_genes = importances["weighted"].sum() / found["n_cells"]
    assert of_genes + sum(found["covariates"].values()) == pytest.approx(1, abs=1e-5)


def read_json_of(study, folder):
    return read_json(study.attribute(folder, cells_per_type=3) / "scores.json")
