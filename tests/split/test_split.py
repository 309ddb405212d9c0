import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from small_atlas import Atlas
from synthetic import make_experiment, make_normalized, write_normalized
from tabatlas import names
from tabatlas.errors import ConfigError
from tabatlas.experiment import name_donors
from tabatlas.provenance import digest_file, read_json
from tabatlas.split.assign import assign_parts
from tabatlas.split.donors import draw_cells, draw_part, draw_units, tie_groups
from tabatlas.split.duplicates import confirm_pairs, pair_barcodes, put_best_first
from tabatlas.split.perturbations import fold_perturbations
from tabatlas.split.prove import prove_disjoint
from tabatlas.split.settings import SplitSettings

NOBODY = np.empty((0, 2), dtype=np.int64)


def make_obs(n_cells=400, n_donors=10, **columns):
    """obs of one dataset whose donors come in runs; columns replace the defaults."""
    number = np.arange(n_cells)
    obs = {
        names.JOINID: number,
        names.OBS_ID: [f"a:{one}" for one in number],
        names.BARCODE: [f"BC{one}" for one in number],
        names.DATASET_ID: "a",
        names.COLLECTION_ID: "study",
        names.DONOR_ID: [f"d{one * n_donors // n_cells}" for one in number],
        names.BATCH: "one",
        names.CELL_TYPE: [f"type{one % 4}" for one in number],
        names.PERTURBATION_ID: names.NOT_APPLICABLE,
        names.PERTURBATION_STRATEGY: names.NO_PERTURBATIONS,
    }
    return pd.DataFrame(obs | columns)


def assign(obs, duplicates=NOBODY, **knobs):
    settings = SplitSettings(**knobs)
    folds = fold_perturbations(obs, settings.perturbation_folds, np.random.default_rng(0))
    return assign_parts(obs, duplicates, folds, settings)


def parts_of(assigned, column):
    """The parts in which each value of a column has cells."""
    return assigned.groupby(column)[names.SPLIT].agg(lambda one: set(one))


def test_no_donor_appears_in_two_splits(atlas):
    cells = pd.read_parquet(atlas.cells)
    assert set(cells[names.SPLIT]) == {"train", "validation", "test"}
    assert (cells.groupby("donor")[names.SPLIT].nunique() == 1).all()


def test_a_donor_of_two_datasets_stays_on_one_side(atlas):
    cells = pd.read_parquet(atlas.cells)
    cells["dataset"] = cells[names.OBS_ID].str.split(":").str[0]
    shared = cells.groupby("donor").filter(lambda one: one["dataset"].nunique() > 1)
    assert set(shared["donor"]) >= {"collection/donor0", "collection/donor1"}
    assert (shared.groupby("donor")[names.SPLIT].nunique() == 1).all()


def test_equal_donor_names_of_two_collections_are_two_people():
    obs = make_obs(4, 1, **{names.COLLECTION_ID: ["x", "x", "y", "y"]})
    assert name_donors(obs).nunique() == 2


def test_a_dataset_of_unknown_donors_is_one_group():
    obs = make_obs(4, 2, **{names.DONOR_ID: names.UNKNOWN, names.DATASET_ID: ["a", "a", "b", "b"]})
    assert name_donors(obs).tolist() == ["a/unknown"] * 2 + ["b/unknown"] * 2


def test_parts_have_about_their_share_of_every_type():
    assigned, _ = assign(make_obs(2000, 40), test_fraction=0.2, validation_fraction=0.1)
    share = assigned.groupby(names.CELL_TYPE)[names.SPLIT].value_counts(normalize=True).unstack()
    assert share["test"].between(0.15, 0.25).all()
    assert share["validation"].between(0.05, 0.12).all()


def test_a_type_of_a_single_donor_stays_where_it_can_be_learnt():
    obs = make_obs(400, 10)
    obs.loc[obs[names.DONOR_ID] == "d3", names.CELL_TYPE] = "rare"
    assigned, _ = assign(obs)
    assert set(assigned.loc[assigned[names.CELL_TYPE] == "rare", names.SPLIT]) == {"train"}


def test_the_same_seed_gives_the_same_split_and_another_one_another():
    obs = make_obs(2000, 40)
    first, again, other = (assign(obs, seed=seed)[0][names.SPLIT] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("n_donors", "n_batches", "unit"), [(3, 1, "donors"), (2, 5, "batches"), (1, 1, "cells")]
)
def test_batches_then_cells_stand_in_for_too_few_donors(n_donors, n_batches, unit):
    number = np.arange(120)
    drawn = draw_units(
        number % n_donors, number % n_batches, number % 3, 0.3, 3, np.random.default_rng(0)
    )
    assert drawn[1] == unit
    assert 0 < drawn[0].sum() < 120


def test_a_split_within_donors_says_so():
    assigned, units = assign(make_obs(100, 1))
    assert (units.test, units.validation) == ("cells", "cells")
    assert set(assigned[names.SPLIT]) == {"train", "validation", "test"}


def test_drawn_cells_leave_one_of_every_class():
    chosen = draw_cells(np.array([0] * 100 + [1]), 0.5, np.random.default_rng(0))
    assert chosen[:100].sum() == 50
    assert not chosen[100]


def test_a_part_is_never_everything():
    chosen = draw_part(np.array([0, 0, 1]), np.zeros(3, int), 0.99, np.random.default_rng(0))
    assert chosen.sum() == 2


def test_held_out_datasets_are_the_test_and_their_donors_train_nothing():
    half = np.where(np.arange(400) < 200, "a", "b")
    donors = [f"d{one % 10 if one >= 200 else 5 + one % 10}" for one in range(400)]
    obs = make_obs(400, **{names.DATASET_ID: half, names.DONOR_ID: donors})
    assigned, units = assign(obs, held_out_datasets=("b",))
    assert units.test == "datasets"
    assert set(assigned.loc[obs[names.DATASET_ID] == "b", names.SPLIT]) == {"test"}
    other = assigned[obs[names.DATASET_ID] == "a"]
    tied = other["donor"].isin([f"study/d{one}" for one in range(5, 10)])
    assert set(other.loc[tied, names.SPLIT]) == {"excluded"}
    prove_disjoint(assigned, units)


def test_datasets_of_the_same_people_stay_together():
    number = np.arange(400)
    obs = make_obs(
        400,
        **{
            names.DATASET_ID: [f"set{one // 50}" for one in number],
            names.COLLECTION_ID: [f"set{one // 50}" for one in number],
            names.DONOR_ID: names.UNKNOWN,
        },
    )
    for seed in range(5):
        assigned, _ = assign(obs, seed=seed, same_people=(("set0", "set1", "set2"),))
        tied = assigned[names.DATASET_ID].isin(["set0", "set1", "set2"])
        assert assigned.loc[tied, names.SPLIT].nunique() == 1


def test_ties_reach_over_others():
    assert len(set(tie_groups(np.array([0, 1, 2, 3]), [(0, 1), (1, 2)]))) == 2


def test_the_second_copy_of_a_cell_is_left_out_and_its_donors_stay_together():
    obs = make_obs(400, 10)
    twins = np.array([[0, 399]])
    for seed in range(5):
        assigned, _ = assign(obs, twins, seed=seed)
        assert assigned.loc[399, names.SPLIT] == "excluded"
        assert assigned.loc[399, "reason"] == "duplicate"
        assert assigned.loc[0, names.SPLIT] == assigned.loc[398, names.SPLIT]


def test_duplicates_have_one_barcode_and_near_equal_counts_over_shared_genes():
    barcodes = ["AAACCCGGGTTT-1", "x_AAACCCGGGTTT", "AAACCCGGGTTT.2", "CCCCCCGGGTTT", "short"]
    obs = make_obs(5, **{names.BARCODE: barcodes, names.DATASET_ID: ["a", "b", "c", "b", "b"]})
    pairs = pair_barcodes(obs)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    counts = sp.csr_matrix([[10, 20, 5, 0], [10, 19, 0, 99], [1, 40, 9, 0], [0] * 4, [0] * 4])
    shared = np.array([True, True, False, False])
    found = confirm_pairs(pairs, lambda rows: counts[rows], lambda a, b: shared)
    assert found.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("labels", "n_measured", "held_out", "kept"),
    [
        (["unknown", "T"], [9, 5], (), 1),  # the labeled copy
        (["T", "T"], [5, 9], (), 1),  # the one with more genes
        (["T", "T"], [9, 9], (), 0),  # the first
        (["T", "unknown"], [9, 5], ("b",), 1),  # the one that is there to be tested
    ],
)
@pytest.mark.parametrize("pair", [[0, 1], [1, 0]])
def test_the_copy_that_is_worth_most_is_kept(labels, n_measured, held_out, kept, pair):
    obs = make_obs(2, **{names.CELL_TYPE: labels, names.DATASET_ID: ["a", "b"]})
    ordered = put_best_first(np.array([pair]), obs, np.array(n_measured), held_out)
    assert ordered.tolist() == [[kept, 1 - kept]]


def spell_barcodes(n_cells):
    """Sequences of 10 bases, all different."""
    return [
        "".join("ACGT"[cell >> 2 * place & 3] for place in range(10)) for cell in range(n_cells)
    ]


def test_a_label_is_not_lost_with_the_copy_that_comes_later(tmp_path):
    """Dataset `a` holds the cells of `b` again, without their labels, and comes first."""
    sources = [tmp_path / f"{name}.h5ad" for name in "abc"]
    for path in sources[1:]:
        adata = make_normalized(path, path.stem, n_cells=40, n_donors=4)
        adata.obs[names.BARCODE] = spell_barcodes(40)
        write_normalized(adata, path)
        if path.stem == "b":
            adata.obs[names.DATASET_ID] = pd.Categorical(["a"] * 40)
            adata.obs.index = adata.obs.index.str.replace("b:", "a:")
            for label in names.LABELS:
                adata.obs[label] = pd.Categorical([names.UNKNOWN] * 40)
            write_normalized(adata, sources[0])
    make_experiment(tmp_path / "ingest", sources)
    atlas = Atlas(tmp_path)
    atlas.run_split(test_fraction=0.3, validation_fraction=0.2)
    cells = pd.read_parquet(atlas.cells)
    copies = cells.loc[cells["reason"] == "duplicate", names.OBS_ID]
    assert len(copies) == 40
    assert copies.str.startswith("a:").all()
    assert read_json(atlas.proof)["n_duplicates"] == 40


def test_a_dataset_of_one_constant_donor_is_never_divided():
    number = np.arange(400)
    pooled = number < 150
    obs = make_obs(400, 20, **{names.DATASET_ID: np.where(pooled, "pool", "a")})
    obs.loc[pooled, [names.COLLECTION_ID, names.DONOR_ID]] = "pool", "kang_pool"
    for seed in range(10):
        assigned, _ = assign(obs, seed=seed, test_fraction=0.4)
        assert assigned.loc[pooled, names.SPLIT].nunique() == 1


def test_of_three_copies_one_is_kept():
    obs = make_obs(3, **{names.DATASET_ID: list("abc"), names.CELL_TYPE: ["unknown", "T", "T"]})
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    ordered = put_best_first(pairs, obs, np.array([9, 5, 7]), ())
    assert set(ordered[:, 1]) == {0, 1}


def test_two_cells_without_shared_counts_are_no_duplicates():
    empty = sp.csr_matrix((2, 3))
    shared = np.ones(3, dtype=bool)
    pairs = np.array([[0, 1]])
    assert not len(confirm_pairs(pairs, lambda rows: empty[rows], lambda a, b: shared))


def make_screen():
    conditions = [names.NOT_APPLICABLE, *(f"G{n}" for n in range(10)), "G0 || G1", "G2 || G3"]
    number = np.arange(390)
    ids = [conditions[one % 13] for one in number]
    strategy = [names.CONTROL if one == "na" else "CRISPR activation screen" for one in ids]
    columns = {names.PERTURBATION_ID: ids, names.PERTURBATION_STRATEGY: strategy}
    return make_obs(390, 1, **columns)


def test_folds_hold_whole_singles_and_fold_0_every_combination():
    folds = fold_perturbations(make_screen(), 2, np.random.default_rng(0))
    assert folds[names.PERTURBATION_ID].is_unique
    assert folds["n_cells"].sum() == 360
    assert set(folds.loc[folds["n_targets"] > 1, "fold"]) == {0}
    singles = folds[folds["n_targets"] == 1]
    assert singles["fold"].value_counts().to_dict() == {0: 5, 1: 5}


def test_another_seed_deals_the_singles_otherwise():
    screen = make_screen()
    first, again, other = (
        fold_perturbations(screen, 5, np.random.default_rng(seed))["fold"].tolist()
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_cells_of_held_out_perturbations_train_nothing_and_controls_do():
    screen, cells = make_screen(), make_obs(200, 5)
    cells[names.JOINID] += 390
    obs = pd.concat([screen, cells.assign(dataset_id="b")], ignore_index=True)
    assigned, _ = assign(obs)
    folds = fold_perturbations(obs, 5, np.random.default_rng(0)).set_index(names.PERTURBATION_ID)
    fold = assigned[names.PERTURBATION_ID].map(folds["fold"])
    assert set(assigned.loc[fold == 0, names.SPLIT]) == {"excluded"}
    assert set(assigned.loc[fold > 0, names.SPLIT]) == {"train"}
    combined = assigned[names.PERTURBATION_ID].str.contains("||", regex=False)
    assert set(assigned.loc[combined, names.SPLIT]) == {"excluded"}
    controls = assigned[names.PERTURBATION_STRATEGY] == names.CONTROL
    assert set(assigned.loc[controls, names.SPLIT]) == {"train"}


def test_cells_of_a_tested_donor_in_a_screen_train_nothing():
    strategy = np.where(np.arange(400) % 3 == 0, names.CONTROL, names.NO_PERTURBATIONS)
    obs = make_obs(400, 10, **{names.PERTURBATION_STRATEGY: strategy})
    assigned, units = assign(obs)
    for part in ("test", "validation"):
        donors = set(assigned.loc[assigned[names.SPLIT] == part, "donor"])
        theirs = assigned[assigned["donor"].isin(donors)]
        assert set(theirs[names.SPLIT]) == {part, "excluded"}
    assert set(prove_disjoint(assigned, units).values()) == {0}


def test_the_proof_counts_what_is_there(atlas):
    proof, cells = read_json(atlas.proof), pd.read_parquet(atlas.cells)
    assert set(proof["disjoint"].values()) == {0}
    sizes = cells[names.SPLIT].value_counts()
    for part in names.PARTS:
        assert proof["parts"][part]["n_cells"] == sizes[part]
    assert sum(row["test"] for row in proof["classes"].values()) == sizes["test"]
    assert len(cells) == 270


def test_a_split_that_is_not_disjoint_is_never_written():
    assigned, units = assign(make_obs(400, 10))
    donors = parts_of(assigned, "donor")
    tested = donors.index[donors.map(lambda one: "test" in one)][0]
    first = assigned.index[assigned["donor"] == tested][0]
    assigned.loc[first, names.SPLIT] = "train"
    with pytest.raises(AssertionError, match="not disjoint"):
        prove_disjoint(assigned, units)


def test_a_dataset_that_the_atlas_lacks_is_an_error(atlas):
    before = digest_file(atlas.cells)
    with pytest.raises(ConfigError, match="`nowhere` is no dataset of the atlas; it has a, b, c"):
        atlas.run_split(held_out_datasets=["nowhere"])
    with pytest.raises(ConfigError, match="none would train"):
        atlas.run_split(held_out_datasets=["a", "b", "c"])
    assert digest_file(atlas.cells) == before
