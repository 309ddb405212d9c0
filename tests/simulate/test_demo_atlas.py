"""The demo atlas: what it promises the stages that learn from it and the tests that trust it."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import MaxAbsScaler

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.genes import PROTEIN_CODING, load_gene_table
from tabatlas.simulate.dataset import SimulatedDataset, simulate_dataset
from tabatlas.simulate.design import (
    ASSAYS,
    CELL_TYPES,
    DATASETS,
    INTERACTIONS,
    PERTURBATIONS,
    SINGLES,
    join_targets,
)
from tabatlas.simulate.markers import MARKERS, MITOCHONDRIAL, list_named_genes
from tabatlas.simulate.settings import SimulateSettings

BLOOD_DATASETS = ("demo_a", "demo_b", "demo_c")


@pytest.fixture(scope="module")
def atlas() -> dict[str, SimulatedDataset]:
    """All four datasets at their default size."""
    return {name: simulate_dataset(design, SimulateSettings()) for name, design in DATASETS.items()}


@pytest.fixture(scope="module")
def screen(atlas) -> SimulatedDataset:
    return atlas["demo_screen"]


def log_expression(dataset: SimulatedDataset) -> sp.csr_matrix:
    """log1p(CP10k) of a dataset's own genes."""
    return log1p_cp10k(dataset.counts, np.asarray(dataset.counts.sum(axis=1)).ravel())


def share_of(dataset: SimulatedDataset, symbols: str) -> np.ndarray:
    """Share of each cell's molecules that some genes have."""
    chosen = dataset.counts[:, dataset.genes.index.isin(symbols.split())]
    return np.asarray(chosen.sum(axis=1) / dataset.counts.sum(axis=1)).ravel()


def is_healthy(dataset: SimulatedDataset) -> np.ndarray:
    return ~(dataset.cells["is_doublet"] | dataset.cells["is_dying"]).to_numpy()


# The programs


def test_more_cells_leave_the_programs_as_they_are(atlas):
    few = simulate_dataset(DATASETS["demo_a"], SimulateSettings(n_cells=300))
    for name, effect in atlas["demo_a"].effects.items():
        pd.testing.assert_frame_equal(few.effects[name], effect)
    pd.testing.assert_frame_equal(few.genes, atlas["demo_a"].genes)


def test_datasets_share_what_is_biology_and_nothing_technical(atlas):
    one, other = atlas["demo_a"], atlas["demo_c"]
    pd.testing.assert_frame_equal(one.effects["cell_type"], other.effects["cell_type"])
    pd.testing.assert_frame_equal(one.modules, other.modules)
    batches = pd.concat([one.effects["batch"], other.effects["batch"]], axis=1)
    related = np.corrcoef(batches.T)
    assert related[0, 1] > 0.5  # libraries of one dataset
    assert abs(related[0, -1]) < 0.1  # of two


def test_programs_of_sibling_types_are_closer_than_those_of_cousins(atlas):
    related = atlas["demo_a"].effects["cell_type"].corr()
    t_cells = "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell"
    monocytes = "classical monocyte", "non-classical monocyte"
    assert (
        related.loc[t_cells]
        > related.loc[t_cells[0], "B cell"]
        > related.loc[t_cells[0], monocytes[0]]
    )
    assert related.loc[monocytes] > related.loc[monocytes[0], "conventional dendritic cell"]


def test_markers_mark_their_type(atlas):
    dataset = atlas["demo_a"]
    for kind in CELL_TYPES:
        program = dataset.effects["cell_type"].loc[MARKERS[kind].split()].mean()
        assert program.idxmax() == kind
        assert program[kind] > 0.3


# The cells


def test_the_atlas_has_its_size_its_assays_and_its_libraries(atlas):
    assert sum(len(dataset.cells) for dataset in atlas.values()) == 6000
    assert {dataset.design.assay for dataset in atlas.values()} == set(ASSAYS)
    for dataset in atlas.values():
        assert dataset.cells["batch"].nunique() == dataset.design.n_batches >= 2


def test_there_are_twenty_people_one_of_them_in_two_datasets(atlas):
    people = [
        (atlas[name].design.collection, donor)
        for name in BLOOD_DATASETS
        for donor in atlas[name].cells["donor_id"].unique()
    ]
    assert len(set(people)) == 20
    assert len(people) == 21


def test_a_person_is_the_same_in_two_datasets(atlas):
    one, other = atlas["demo_a"], atlas["demo_b"]
    (donor,) = set(one.design.donors) & set(other.design.donors)
    genes = other.genes.index
    np.testing.assert_array_equal(
        one.effects["donor_id"].loc[genes, donor], other.effects["donor_id"][donor]
    )


def test_types_are_unequal_vary_by_donor_and_one_is_rare(atlas):
    cells = pd.concat([atlas[name].cells.assign(dataset=name) for name in BLOOD_DATASETS])
    shares = cells["cell_type"].value_counts(normalize=True)
    assert set(shares.index) == set(CELL_TYPES)
    assert shares.max() > 0.25
    assert 0.01 < shares["plasmablast"] == shares.min() < 0.035
    by_donor = pd.crosstab([cells["dataset"], cells["donor_id"]], cells["cell_type"])
    frequency = by_donor.div(by_donor.sum(axis=1), axis=0)["B cell"]
    assert frequency.max() > 1.5 * frequency.min()


def test_library_sizes_spread_and_differ_by_assay(atlas):
    medians = {}
    for name in BLOOD_DATASETS:
        totals = np.asarray(atlas[name].counts.sum(axis=1)).ravel()
        medians[name] = np.median(totals)
        assert 1500 < medians[name] < 4000
        assert np.percentile(totals, 90) > 2 * np.percentile(totals, 10)
    assert medians["demo_c"] > 1.3 * medians["demo_a"]


def test_counts_are_overdispersed(atlas):
    dataset = atlas["demo_a"]
    counts = dataset.counts[is_healthy(dataset)]
    total = np.asarray(counts.sum(axis=1)).ravel()
    rate = np.outer(total / total.sum(), np.asarray(counts.sum(axis=0)).ravel())
    expressed = rate.mean(axis=0) > 0.5
    excess = np.square(counts.toarray() - rate).mean(axis=0) / rate.mean(axis=0)
    assert np.median(excess[expressed]) > 1.5


# Doublets and dying cells


@pytest.mark.parametrize("name", DATASETS)
def test_doublets_and_dying_cells_are_as_many_as_said_and_never_the_same(atlas, name):
    cells = atlas[name].cells
    assert cells["is_doublet"].sum() == round(0.05 * len(cells))
    assert cells["is_dying"].sum() == round(0.04 * len(cells))
    assert not (cells["is_doublet"] & cells["is_dying"]).any()
    assert ((cells["cell_type_second"] != "") == cells["is_doublet"]).all()


def test_a_doublet_has_more_molecules_than_a_cell_and_fewer_than_two(atlas):
    for dataset in atlas.values():
        totals = np.asarray(dataset.counts.sum(axis=1)).ravel()
        cells = dataset.cells
        ratio = np.mean(totals[cells["is_doublet"]]) / np.mean(totals[is_healthy(dataset)])
        assert 1.2 < ratio < 1.8


def test_a_doublet_expresses_both_of_its_types(atlas):
    first, second = [], []
    for name in BLOOD_DATASETS:
        dataset = atlas[name]
        expression, cells = log_expression(dataset), dataset.cells
        healthy = is_healthy(dataset)
        known = cells["cell_type"].to_numpy()
        for row in np.flatnonzero(cells["is_doublet"]):
            types = cells.loc[row, ["cell_type", "cell_type_second"]]
            if types.nunique() == 1:
                continue
            means = [
                np.asarray(expression[healthy & (known == kind)].mean(axis=0)).ravel()
                for kind in types
            ]
            # How far the doublet lies on the way from its first type to its second.
            way = means[1] - means[0]
            place = (expression[row].toarray().ravel() - means[0]) @ way / (way @ way)
            first.append(place > 0.2)
            second.append(place < 0.8)
    assert np.mean(first) > 0.8
    assert np.mean(second) > 0.8


def test_dying_cells_are_small_and_mitochondrial(atlas):
    for dataset in atlas.values():
        mitochondrial = share_of(dataset, MITOCHONDRIAL)
        totals = np.asarray(dataset.counts.sum(axis=1)).ravel()
        dying, healthy = dataset.cells["is_dying"].to_numpy(), is_healthy(dataset)
        assert np.median(mitochondrial[healthy]) < 0.1
        assert np.median(mitochondrial[dying]) > 0.2
        assert np.median(totals[dying]) < 0.5 * np.median(totals[healthy])


# The genes


def test_genes_are_real_and_the_named_ones_are_all_there(atlas):
    table = load_gene_table("Homo sapiens")
    genes = atlas["demo_a"].genes
    assert len(genes) == 2000
    assert (table.loc[genes["feature_id"], names.FEATURE_TYPE] == PROTEIN_CODING).all()
    assert (table.loc[genes["feature_id"], names.FEATURE_NAME].to_numpy() == genes.index).all()
    assert list_named_genes() <= set(genes.index)
    assert len(MITOCHONDRIAL.split()) == 13


def test_demo_b_lacks_three_genes_in_ten_and_has_no_zeros_in_their_place(atlas):
    assert atlas["demo_b"].counts.shape[1] == 1400
    assert set(atlas["demo_b"].genes.index) < set(atlas["demo_a"].genes.index)
    assert set(MITOCHONDRIAL.split()) <= set(atlas["demo_b"].genes.index)
    for name in ("demo_a", "demo_c", "demo_screen"):
        assert atlas[name].counts.shape[1] == 2000


# What can be learned


def test_types_of_held_out_donors_can_be_told_but_not_all(atlas):
    expression, labels, donors = [], [], []
    genes = atlas["demo_b"].genes.index
    for name in BLOOD_DATASETS:
        dataset = atlas[name]
        kept = is_healthy(dataset)
        expression.append(log_expression(dataset)[kept][:, dataset.genes.index.get_indexer(genes)])
        labels.append(dataset.cells["cell_type"][kept])
        donors.append(dataset.design.collection + dataset.cells["donor_id"][kept])
    x, y, donor = sp.vstack(expression), pd.concat(labels), pd.concat(donors)
    test = donor.isin(sorted(donor.unique())[::4]).to_numpy()
    model = LogisticRegression(C=0.1, tol=1e-2).fit(
        scale_genes(x[~test], x[~test]), y.to_numpy()[~test]
    )
    score = f1_score(y[test], model.predict(scale_genes(x[test], x[~test])), average="macro")
    assert 0.85 < score < 0.97


def scale_genes(x: sp.csr_matrix, like: sp.csr_matrix) -> sp.csr_matrix:
    return MaxAbsScaler().fit(like).transform(x)


def test_a_hidden_gene_can_be_predicted_from_the_others(atlas):
    dataset = atlas["demo_a"]
    x = log_expression(dataset)[is_healthy(dataset)].toarray()
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 0.1)
    hidden = np.arange(x.shape[1]) % 2 == 0
    train = np.arange(len(x)) % 4 != 0
    gram = x[train][:, ~hidden].T @ x[train][:, ~hidden] + 3000 * np.eye((~hidden).sum())
    weights = np.linalg.solve(gram, x[train][:, ~hidden].T @ x[train][:, hidden])
    error = np.square(x[~train][:, ~hidden] @ weights - x[~train][:, hidden]).mean()
    assert error < 0.87 * np.square(x[~train][:, hidden]).mean()


def test_disease_raises_interferon_genes_in_the_diseased(atlas):
    dataset = atlas["demo_a"]
    diseased = dataset.cells["donor_id"].isin(dataset.design.diseased).to_numpy()
    share = share_of(dataset, "ISG15 IFI6 IFIT1 IFIT3 MX1 OAS1 IFI44L")
    for kind in ("CD4-positive, alpha-beta T cell", "classical monocyte", "B cell"):
        own = is_healthy(dataset) & (dataset.cells["cell_type"] == kind).to_numpy()
        assert share[own & diseased].mean() > 1.5 * share[own & ~diseased].mean()


def test_datasets_differ_in_a_way_that_is_not_depth(atlas):
    """Within one type the mean profiles of two datasets differ more than those of two libraries."""
    kind = "CD4-positive, alpha-beta T cell"
    profiles = {}
    for name in ("demo_a", "demo_c"):
        dataset = atlas[name]
        for batch in dataset.design.batches[:2]:
            chosen = is_healthy(dataset) & (dataset.cells["cell_type"] == kind)
            chosen &= dataset.cells["batch"] == batch
            rate = np.asarray(dataset.counts[chosen.to_numpy()].sum(axis=0)).ravel()
            profiles[batch] = np.log((rate + 1) / rate.sum())
    across = np.std(profiles["demo_a_library1"] - profiles["demo_c_library1"])
    within = np.std(profiles["demo_a_library1"] - profiles["demo_a_library2"])
    assert across > 1.2 * within


# The screen


def test_the_screen_has_its_controls_singles_and_doubles(screen):
    sizes = screen.cells["perturbation"].value_counts()
    assert len(SINGLES) == 20
    assert len(INTERACTIONS) == 10
    assert set(sizes.index) == set(PERTURBATIONS)
    assert sizes[names.NOT_APPLICABLE] >= 200
    assert sizes.drop(names.NOT_APPLICABLE).min() >= 50


def test_each_target_is_activated(screen):
    rate = screen.counts.multiply(1 / screen.counts.sum(axis=1)).tocsr()
    is_control = (screen.cells["perturbation"] == names.NOT_APPLICABLE).to_numpy()
    for target in SINGLES:
        gene = rate[:, screen.genes.index.get_loc(target)]
        own = (screen.cells["perturbation"] == target).to_numpy()
        assert gene[own].mean() > 3 * gene[is_control].mean()


def test_doubles_add_up_unless_they_interact(screen):
    effects = screen.effects["perturbation"]
    for pair, kind in INTERACTIONS.items():
        double, summed = effects[join_targets(*pair)], effects[list(pair)].sum(axis=1)
        size, expected = np.abs(double).sum(), np.abs(summed).sum()
        assert np.allclose(double, summed) == (kind == "additive")
        if kind == "suppressive":
            assert size < 0.8 * expected
        if kind in ("synergistic", "neomorphic"):
            assert size > 1.1 * expected


def test_perturbations_share_programs_and_leave_most_genes_alone(screen):
    effects = screen.effects["perturbation"][list(SINGLES)]
    n_changed = (effects != 0).sum()
    assert n_changed.min() >= 20
    assert n_changed.max() < 200
    related = effects.corr().to_numpy()[np.triu_indices(len(SINGLES), 1)]
    assert (related > 0.3).sum() >= 5
    assert (np.abs(related) < 0.1).sum() >= 5
