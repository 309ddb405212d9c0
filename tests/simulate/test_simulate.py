"""The simulator's files: reproducible, in the form of a user's, explained by their truth."""

import hashlib
import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas import names
from tabatlas.errors import ConfigError, UsageError
from tabatlas.genes import map_names
from tabatlas.ontology import ancestors, ids_by_label, name_term, parser
from tabatlas.simulate.design import (
    ASSAYS,
    BLOOD,
    CELL_LINE,
    CELL_TYPES,
    DATASETS,
    DISEASES,
    INTERACTIONS,
    TREE,
    join_targets,
)
from tabatlas.simulate.draws import apportion, named_generator
from tabatlas.simulate.markers import list_named_genes
from tabatlas.simulate.settings import SimulateSettings
from tabatlas.simulate.stage import run

BLOOD_DATASETS = ("demo_a", "demo_b", "demo_c")
SMALL = {"n_cells": 1200, "n_genes": 800}

# Frozen: sha256 of counts, obs and var names of each dataset at 300 cells × 800 genes, seed 0.
# If one changes, so does every number that was ever measured on the demo atlas.
FROZEN = {
    "demo_a": "56634d0d5adffa860b8c2326a61e123bfc66f6dc24444d882c34f55010101935",
    "demo_b": "90d3e7e4badbdc881bab60d043724528b51a85049e08f91d56c7eeac69bd61bb",
    "demo_c": "4ca7bcd5eefdfed417ccf7cd90796b2d781ea62f5afa8136b7a0e6c174058aac",
    "demo_screen": "e5dbf9850e164de9583eda6ca874be915f572c28b5038100347ab09a2d231f76",
}


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> dict[str, tuple[ad.AnnData, ad.AnnData]]:
    """File and truth of each dataset, small, as the command writes them."""
    folder = tmp_path_factory.mktemp("simulate")
    return {name: read_run(name, folder, **SMALL) for name in DATASETS}


def read_run(name, folder, **settings) -> tuple[ad.AnnData, ad.AnnData]:
    """Run the stage and read its two files."""
    (folder / "simulate.json").write_text(json.dumps(settings))
    paths = folder / f"{name}.h5ad", folder / f"{name}.truth.h5ad"
    run(name, folder / "simulate.json", *paths, folder / f"{name}.markers.tsv")
    return ad.read_h5ad(paths[0]), ad.read_h5ad(paths[1])


def take_counts(source: ad.AnnData, place: str) -> sp.csr_matrix:
    """The raw counts of a file, from the place where its design puts them."""
    if place == "layers":
        return source.layers["counts"]
    return source.raw.X if place == "raw" else source.X


def digest_content(source: ad.AnnData, place: str) -> str:
    """sha256 of counts, cells and genes; not of the file, whose layout HDF5 decides."""
    counts = take_counts(source, place)
    text = source.obs.astype(str).to_csv() + "\n".join(source.var_names)
    digest = hashlib.sha256(text.encode())
    for part, kind in ((counts.indptr, "<i8"), (counts.indices, "<i8"), (counts.data, "<f4")):
        digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
    return digest.hexdigest()


# Reproducible


@pytest.mark.parametrize("name", DATASETS)
def test_the_demo_atlas_is_frozen(name, tmp_path):
    source, _ = read_run(name, tmp_path, n_cells=300, n_genes=800)
    assert digest_content(source, DATASETS[name].counts_place) == FROZEN[name]


def test_equal_settings_give_equal_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        np.random.seed(len(str(folder)))  # a global seed must not matter
        read_run("demo_b", folder, **SMALL)
    for name in ("demo_b.h5ad", "demo_b.truth.h5ad"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_another_seed_gives_another_atlas(small_files, tmp_path):
    source, _ = small_files["demo_a"]
    other, _ = read_run("demo_a", tmp_path, seed=1, **SMALL)
    assert (source.X.sum(), list(source.var_names)) != (other.X.sum(), list(other.var_names))


def test_generators_of_two_names_differ_and_of_one_name_agree():
    draws = [named_generator(0, *name).random() for name in (("a", "b"), ("a", "b"), ("a", "c"))]
    assert draws[0] == draws[1] != draws[2]


def test_parts_add_up_to_the_whole():
    parts = apportion(100, np.array([1.0, 1.0, 1.0]))
    assert sorted(parts) == [33, 33, 34]


# The files


@pytest.mark.parametrize("name", DATASETS)
def test_counts_are_integers_in_csr_float32_where_the_design_puts_them(small_files, name):
    source, place = small_files[name][0], DATASETS[name].counts_place
    counts = take_counts(source, place)
    assert sp.isspmatrix_csr(counts) or isinstance(counts, sp.csr_array)
    assert counts.dtype == np.float32
    assert (counts.data == np.rint(counts.data)).all()
    assert counts.data.min() >= 1
    assert (source.X.data == np.rint(source.X.data)).all() == (place == "X")


def test_each_blood_dataset_puts_its_counts_elsewhere():
    assert {DATASETS[name].counts_place for name in BLOOD_DATASETS} == {"X", "layers", "raw"}


def test_every_file_names_its_genes_in_its_own_way_and_none_is_lost(small_files):
    forms = {"demo_a": r"(?!ENSG\d).+", "demo_b": r"ENSG\d{11}", "demo_c": r"ENSG\d{11}\.\d+"}
    for name, form in forms.items():
        source, truth = small_files[name]
        assert all(re.fullmatch(form, gene) for gene in source.var_names)
        found = map_names(source.var_names, "Homo sapiens").feature_id
        assert (found == truth.var["feature_id"].to_numpy()).all()


def test_labels_follow_the_truth(small_files):
    for name in BLOOD_DATASETS:
        source, truth = small_files[name]
        assert (source.obs["cell_type"].astype(str) == truth.obs["cell_type"].astype(str)).all()
        terms = source.obs["cell_type"].astype(str).map({k: v.term for k, v in CELL_TYPES.items()})
        assert (source.obs["cell_type_ontology_term_id"].astype(str) == terms).all()


def test_the_screen_says_what_was_perturbed_as_the_schema_does(small_files):
    source, truth = small_files["demo_screen"]
    assert (source.obs[names.PERTURBATION_ID].astype(str) == truth.obs["perturbation"]).all()
    is_control = source.obs[names.PERTURBATION_ID] == names.NOT_APPLICABLE
    strategy = source.obs[names.PERTURBATION_STRATEGY]
    assert set(strategy[is_control]) == {names.CONTROL}
    assert set(strategy[~is_control]) == {"CRISPR activation screen"}
    for name in set(source.obs[names.PERTURBATION_ID][~is_control]):
        targets = name.split(names.PERTURBATION_DELIMITER)
        assert targets == sorted(targets)
        assert set(targets) <= set(source.var[names.FEATURE_NAME])
    assert set(source.obs[names.CELL_TYPE]) == {names.UNKNOWN}


def test_columns_that_the_schema_forbids_without_perturbations_are_absent(small_files):
    for name, (source, _) in small_files.items():
        assert (names.PERTURBATION_ID in source.obs) == (name == "demo_screen")


def test_barcodes_look_like_barcodes(small_files):
    source, _ = small_files["demo_c"]
    assert all(re.fullmatch(r"[ACGT]{16}-[123]", barcode) for barcode in source.obs_names)


@pytest.mark.parametrize("name", DATASETS)
def test_truth_and_file_have_the_same_cells_and_genes(small_files, name):
    source, truth = small_files[name]
    assert truth.X is None
    assert (truth.obs_names == source.obs_names).all()
    assert (truth.var_names == source.var_names).all()
    assert source.obs_names.is_unique
    assert source.var_names.is_unique
    assert source.uns[names.ORGANISM] == "Homo sapiens"


def test_the_truth_explains_the_counts(small_files):
    source, truth = small_files["demo_a"]
    log_rate = truth.var["base"].to_numpy() + truth.obsm["module"] @ truth.varm["module"].T
    for column in ("cell_type", "batch", "donor_id"):
        log_rate = log_rate.to_numpy() if isinstance(log_rate, pd.DataFrame) else log_rate
        log_rate = log_rate + truth.varm[column][truth.obs[column].astype(str)].to_numpy().T
    rate = np.exp(log_rate)
    scale = truth.obs["library_scale"].to_numpy() / rate.sum(axis=1)
    expected = (rate * scale[:, None])[~truth.obs["is_doublet"].to_numpy()]
    counted = source.X.toarray()[~truth.obs["is_doublet"].to_numpy()]
    assert counted.sum() == pytest.approx(expected.sum(), rel=0.02)
    assert np.corrcoef(np.log1p(counted).ravel(), np.log1p(expected).ravel())[0, 1] > 0.7


def test_markers_are_the_genes_that_a_types_program_raises(tmp_path):
    _, truth = read_run("demo_b", tmp_path, **SMALL)
    markers = pd.read_csv(tmp_path / "demo_b.markers.tsv", sep="\t")
    programs = truth.varm["cell_type"].set_index(truth.var["feature_id"].to_numpy())
    for label, program in programs.items():
        marked = markers.loc[markers["cell_type"] == CELL_TYPES[label].term, "gene"]
        assert set(marked) == set(program.index[program > 1])
        assert program[marked].is_monotonic_decreasing
    assert len(markers) == (programs > 1).to_numpy().sum() > 100


def test_a_screen_of_one_cell_line_has_no_markers(tmp_path):
    read_run("demo_screen", tmp_path, **SMALL)
    assert (tmp_path / "demo_screen.markers.tsv").read_text() == "cell_type\tgene\n"


def test_the_truth_names_the_interactions(small_files):
    _, truth = small_files["demo_screen"]
    kinds = {join_targets(*pair): kind for pair, kind in INTERACTIONS.items()}
    assert truth.uns["interaction"] == kinds
    assert list(kinds.values()).count("additive") == 5


# The ontologies


def test_ids_are_current_terms_with_their_own_names():
    for name, kind in CELL_TYPES.items():
        assert ids_by_label()[name.lower()] == kind.term
    terms = {**ASSAYS, **DISEASES, **dict([BLOOD, CELL_LINE])}
    for name, term in terms.items():
        assert parser().get_term_label(term) == name
        assert not parser().is_term_deprecated(term)


def test_the_tree_of_programs_is_a_part_of_the_cell_ontology():
    for name, node in TREE.items():
        term = ids_by_label()[name.lower()]
        assert name in CELL_TYPES or any(child.parent == name for child in TREE.values())
        if node.parent is not None:
            assert node.parent in {name_term(ancestor) for ancestor in ancestors(term)}


# What a user can do wrong


def test_an_unknown_dataset_is_named_with_the_known_ones(tmp_path):
    (tmp_path / "simulate.json").write_text("{}")
    paths = [tmp_path / name for name in ("a.h5ad", "t.h5ad", "markers.tsv")]
    with pytest.raises(UsageError, match=r"pbmc_a: the demo atlas has demo_a, demo_b"):
        run("pbmc_a", tmp_path / "simulate.json", *paths)
    assert [path.name for path in tmp_path.iterdir()] == ["simulate.json"]


def test_too_few_genes_for_the_named_ones_are_refused():
    with pytest.raises(ConfigError, match="n_genes"):
        SimulateSettings.parse({"n_genes": 100}, "simulate.json")
    assert len(list_named_genes()) < 800
