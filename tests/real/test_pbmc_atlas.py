"""Five studies of blood, each with a trap of its own, from fetch to report in one atlas."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from real_atlas import DATA, NEEDS_CELLS, build_atlas
from tabatlas import names
from tabatlas.experiment import Experiment, open_experiment
from tabatlas.provenance import read_json
from tabatlas.scores.classification import average_f1, count_confusion
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource, find_genes
from tabatlas.tabnet.classifier import Classifier
from tabatlas.train.model import read_model, restore_classifier
from tabatlas.train.predict import predict

CONFIG = Path(__file__).with_name("pbmc_atlas.yaml")
SIDES = ["train", "validation", "test"]
# Who a cell is from, by the files themselves; the Kang sets are the same eight people.
PEOPLE = {
    "pbmc3k": lambda obs: "pbmc3k",
    "kang_13type": lambda obs: "kang",
    "kang_2donor": lambda obs: "kang",
    "onek1k": lambda obs: ("onek1k/" + obs["donor_id"].astype(str)).to_numpy(),
    # Two samples of a study are halves of one person's cells; GSE115189 holds cells of pbmc3k.
    "pbmc_14sample": lambda obs: obs["study"].astype(str).replace("GSE115189", "pbmc3k").to_numpy(),
}
BARCODE = 14  # bases with which the names of cells begin in files that share some

pytestmark = [*NEEDS_CELLS, pytest.mark.slow]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The atlas, built in a folder in which `data` is the real cells."""
    folder = tmp_path_factory.mktemp("pbmc_atlas")
    build_atlas(CONFIG, Path(DATA), folder)
    return folder / "results" / "pbmc_atlas"


@pytest.fixture(scope="module")
def sources():
    """The files themselves, by dataset id."""
    rows = yaml.safe_load(CONFIG.read_text())["datasets"]
    return {row["dataset_id"]: ad.read_h5ad(Path(DATA) / Path(row["path"]).name) for row in rows}


@pytest.fixture(scope="module")
def cells(results):
    """`split/cells.parquet` by obs_id, with the dataset of each cell."""
    table = pd.read_parquet(results / "split" / "cells.parquet").set_index(names.OBS_ID)
    return table.assign(dataset=table.index.str.partition(":").get_level_values(0))


@pytest.fixture(scope="module")
def twins(sources, cells):
    """Pairs of obs_ids of one cell, both of which passed quality control.

    Found in the files: one barcode, and equal counts of most genes that either copy expresses.
    Of other cells with one barcode less than a tenth are equal.
    """
    pairs = []
    for one, other in itertools.combinations(sources, 2):
        a, b = sources[one], sources[other]
        genes = a.var_names.intersection(b.var_names)
        places = pd.Series(range(b.n_obs), index=b.obs_names.str[:BARCODE])
        for number, barcode in enumerate(a.obs_names.str[:BARCODE]):
            for place in places.get([barcode], pd.Series(dtype=int)):
                u, v = a[number, genes].X.toarray(), b[place, genes].X.toarray()
                if (u == v)[(u > 0) | (v > 0)].mean() > 0.5:
                    pairs.append((f"{one}:{a.obs_names[number]}", f"{other}:{b.obs_names[place]}"))
    found = pd.DataFrame(pairs, columns=["one", "other"])
    return found[found["one"].isin(cells.index) & found["other"].isin(cells.index)]


def test_five_studies_end_at_one_report(results):
    page = (results / "report" / "index.html").read_text()
    assert "pbmc_atlas@" in page
    assert "onek1k" in page


def test_panels_and_whole_transcriptomes_share_few_genes(results, sources):
    """Measured: 248 protein-coding genes are in all five files, of 849 to 12,618 in each."""
    with open_experiment(results / "ingest" / "manifest.json") as experiment:
        presence_mg = experiment.read_presence()
        n_measured = dict(zip(experiment.dataset_ids, presence_mg.sum(axis=1), strict=True))
    assert 200 < presence_mg.all(axis=0).sum() < 300
    assert all(n_measured[name] <= adata.n_vars for name, adata in sources.items())
    assert n_measured["onek1k"] < 1000 < 10_000 < n_measured["pbmc_14sample"]


def test_no_person_stands_on_two_sides(sources, cells):
    people = pd.concat(
        [
            pd.Series(PEOPLE[name](adata.obs), index=f"{name}:" + adata.obs_names)
            for name, adata in sources.items()
        ]
    )
    kept = cells[cells["split"].isin(SIDES)]
    sides = kept.groupby(people.loc[kept.index].to_numpy())["split"].agg(set)
    assert len(sides) == 1 + 1 + 40 + 6
    assert sides.map(len).max() == 1
    assert sides["pbmc3k"] == {"test"}


def test_a_dataset_of_one_pooled_donor_stays_whole(cells):
    for name in ("kang_13type", "pbmc3k"):
        mine = cells[cells["dataset"] == name]
        assert mine["split"].nunique() == 1
        assert set(mine["reason"]) == {""}


def test_no_cell_stands_on_two_sides(cells, twins):
    first, second = (cells.loc[twins[column], "split"].isin(SIDES) for column in twins)
    assert (first.to_numpy() ^ second.to_numpy()).all()
    assert cells.index.is_unique


def test_cells_of_two_studies_are_found_counted_and_kept_once(results, cells, twins):
    datasets = twins.apply(lambda column: column.str.partition(":")[0])
    found = datasets.value_counts().to_dict()
    assert set(found) == {("kang_13type", "kang_2donor"), ("pbmc3k", "pbmc_14sample")}
    assert 140 <= found["kang_13type", "kang_2donor"] <= 149
    assert 280 <= found["pbmc3k", "pbmc_14sample"] <= 297
    split = read_json(results / "split" / "split.json")
    assert split["n_duplicates"] == len(twins)
    assert (cells["reason"] == "duplicate").sum() == len(twins)
    # The labeled copy, or that with more genes, is kept.
    assert set(cells.loc[cells["reason"] == "duplicate", "dataset"]) == {
        "kang_2donor",
        "pbmc_14sample",
    }


def test_unlabeled_cells_train_the_encoder_and_not_the_classifier(results, cells):
    packed = PackedSource(results / "pack" / "manifest.json", "train").cells.table()
    train = cells[cells["split"] == "train"]
    assert set(packed[names.JOINID]) == set(train[names.JOINID])
    unlabeled = packed[names.CELL_TYPE] == names.UNKNOWN
    own = packed[names.DATASET_ID] == "pbmc_14sample"
    assert (unlabeled == own).all()
    assert own.sum() == (train["dataset"] == "pbmc_14sample").sum() > 1000
    # Genes that they alone measured are among those that the encoder predicts.
    genes = pd.read_parquet(results / "pretrain" / "genes.parquet")
    assert (genes["n_measured"] == own.sum()).any()
    log = (results.parents[1] / "logs" / "pbmc_atlas" / "pretrain.log").read_text()
    assert f"{len(packed)} cells × {len(genes)} genes" in log
    classes = read_json(results / "finetune" / "labels.json")
    assert sum(one["n_train"] for one in classes) == (~unlabeled).sum()
    assert names.UNKNOWN not in {one["label"] for one in classes}


def test_the_split_says_which_types_have_no_validation(results):
    """Validation donors are of onek1k and pbmc_14sample: the first has four labels."""
    (note,) = read_json(results / "split" / "split.json")["notes"]
    assert note.startswith("no validation cell of 10 of 14 types")


def test_labels_of_all_studies_are_terms_of_the_ontology(results):
    classes = read_json(results / "finetune" / "labels.json")
    assert all(one["ontology_term_id"].startswith("CL:") for one in classes)
    labels = {one["label"] for one in classes}
    # Coarse and fine names of one lineage stand side by side.
    assert labels >= {"T cell", "CD4-positive, alpha-beta T cell", "memory B cell", "B cell"}
    assert len(labels) == 14


def test_a_new_study_is_labeled(results):
    """pbmc3k by the other four. Measured with two seeds: macro-F1 0.793 and 0.689, beside 0.756 of
    logistic regression and 0 of the majority, whose class pbmc3k lacks.

    That is no lead over logistic regression: what differs between seeds are mostly platelets (13
    test cells), dendritic cells (29), and memory or naive CD4 T cells.
    """
    scores = read_json(results / "finetune" / "scores.json")
    macro_f1 = {name: one["macro_f1"]["value"] for name, one in scores["methods"].items()}
    assert scores["n_test_cells"] > 2500
    assert macro_f1["tabnet"] > macro_f1["majority"] + 0.4
    assert macro_f1["tabnet"] > macro_f1["logistic_regression"] - 0.15


@dataclass(frozen=True)
class Query:
    """The held-out study as a user's file would give it, some genes of the atlas taken out.

    Both say the same of every gene that is left: its count, and the sum over what is left.
    """

    experiment: Experiment
    source: SomaSource
    genes: pd.Series
    dropped_g: np.ndarray  # of all genes of the atlas

    @property
    def lost_g(self) -> torch.Tensor:
        """Which of the model's genes are dropped."""
        atlas = self.experiment.read_var()[names.FEATURE_ID]
        return torch.from_numpy(self.dropped_g[find_genes(atlas, self.genes)])

    def iterate(self) -> Iterator[Minibatch]:
        """Minibatches without the counts of the dropped genes."""
        lost_g = self.lost_g
        for minibatch in self.source.iterate(256):
            counts = self.experiment.read_counts(minibatch.joinid.numpy())
            lost_n = counts[:, np.flatnonzero(self.dropped_g)].sum(axis=1).A1
            yield replace(
                minibatch,
                count=minibatch.count.masked_fill(lost_g[minibatch.gene.long()], 0),
                total_n=minibatch.total_n - torch.from_numpy(lost_n),
            )

    def predict(self, classifier: Classifier, unmeasured: bool) -> np.ndarray:
        """Probabilities (n, c) with the dropped genes `unmeasured`, or else as zeros."""
        presence_mg = self.source.presence.clone()
        if unmeasured:
            presence_mg &= ~self.lost_g
        found = predict(
            lambda *inputs: classifier.classify(*inputs)[0].softmax(dim=1),
            self.iterate(),
            presence_mg,
        )
        return torch.cat([probability_nc for _, probability_nc in found]).numpy()


def test_genes_that_were_not_measured_change_less_than_zeros(results, cells):
    """Half of a new study's genes, dropped at random; the mean of five draws.

    Measured: the label stays that of 65 % of the cells, with zeros of 46 %; probability that moves
    0.33 against 0.51; macro-F1 (0.74 with all genes) 0.56 against 0.38. In one of the five draws
    the zeros keep more labels (57 against 53 %).
    """
    model = read_model(results / "finetune")
    classifier = restore_classifier(model, torch.Generator()).eval()
    labels = [one["label"] for one in read_json(results / "finetune" / "labels.json")]
    joinids = cells.loc[cells["split"] == "test", names.JOINID].to_numpy()
    genes, drawn = model.genes[names.FEATURE_ID], []
    with open_experiment(results / "ingest" / "manifest.json") as experiment:
        source = SomaSource(experiment, joinids, genes, labels)
        (dataset,) = set(source.cells.columns["dataset"])
        measured_g = experiment.read_presence()[dataset]
        nothing_g = np.zeros_like(measured_g)
        whole = Query(experiment, source, genes, nothing_g).predict(classifier, False)
        for seed in range(5):
            dropped_g = measured_g & (np.random.default_rng(seed).random(len(measured_g)) < 0.5)
            query = Query(experiment, source, genes, dropped_g)
            drawn.append([query.predict(classifier, unmeasured) for unmeasured in (True, False)])
    stored = pd.read_parquet(results / "finetune" / "predictions.parquet")
    predicted = whole.argmax(axis=1)
    assert (stored["predicted"].to_numpy() == np.array(labels)[predicted]).all()
    label_n = source.cells.find_classes(slice(None))
    found = {
        "same": lambda one: (one.argmax(axis=1) == predicted).mean(),
        "moved": lambda one: -np.abs(one - whole).sum(axis=1).mean() / 2,
        "right": lambda one: average_f1(count_confusion(label_n, one.argmax(axis=1), len(labels))),
    }
    for name, measure in found.items():
        missing, zero = np.mean([[measure(one) for one in pair] for pair in drawn], axis=0)
        assert missing > zero, name
