import numpy as np
import pandas as pd
import pytest
from small_unit import make_unit

from tabatlas import names
from tabatlas.errors import IntegrityError
from tabatlas.perturb import pseudobulk
from tabatlas.perturb.audit import BATCH, audit_cells, audit_fits, list_yielded
from tabatlas.perturb.pseudobulk import KNOWN, TRUTH, measure_unit
from tabatlas.perturb.screens import ATLAS, CONTROL_ID, OUTSIDE
from tabatlas.perturb.sets import Part, PerturbationSet, make_sets
from tabatlas.stream.packed import PackedSource

SINGLES = [f"G{number}" for number in range(8)]
DOUBLES = ["G0 || G1", "G2 || X", "G3 || G4 || G5"]


def folded_unit(origin):
    folds = {one: number % 4 for number, one in enumerate(SINGLES)} | dict.fromkeys(DOUBLES, 0)
    return make_unit(origin=origin, folds=folds)


def named_sets(origin):
    return {one.name: one for one in make_sets(folded_unit(origin), SINGLES + DOUBLES)}


def test_a_single_is_predicted_without_its_fold():
    for origin, n_folds in ((ATLAS, 1), (OUTSIDE, 4)):
        parts = named_sets(origin)["singles"].parts
        assert len(parts) == n_folds
        for part in parts:
            assert sorted(part.train + part.test) == SINGLES
            assert not set(part.train) & set(part.test)


def test_of_an_atlas_screen_only_what_the_encoder_did_not_see_is_tested():
    assert named_sets(ATLAS)["singles"].test == ["G0", "G4"]
    assert sorted(named_sets(OUTSIDE)["singles"].test) == SINGLES


def test_doubles_with_an_unknown_single_stand_apart_and_larger_ones_are_not_tested():
    sets = named_sets(OUTSIDE)
    assert sets["doubles"].test == ["G0 || G1"]
    assert sets["doubles_unseen"].test == ["G2 || X"]
    assert sets["doubles"].parts[0].train == tuple(SINGLES)


def test_a_unit_of_too_few_singles_has_no_set():
    assert make_sets(folded_unit(OUTSIDE), SINGLES[:3]) == []


def test_a_tested_perturbation_in_its_own_fit_is_found():
    clean = PerturbationSet("singles", (Part(("A", "B"), ("C",)),))
    assert audit_fits([clean]) == 0
    with pytest.raises(IntegrityError, match=r"in the head's fit \(first: B\)"):
        audit_fits([clean, PerturbationSet("singles", (Part(("A", "B"), ("B",)),))])


def test_a_held_out_cell_that_was_read_is_found():
    obs = pd.DataFrame({names.JOINID: [3, 5, 8], names.PERTURBATION_ID: ["A", "B", "na"]})
    folds = pd.DataFrame({names.PERTURBATION_ID: ["A", "B"], "fold": [0, 1]})
    yielded = {"train": np.array([5, 8]), "validation": np.array([], dtype=int)}
    assert audit_cells(yielded, obs, folds)["n_leaked_cells"] == 0
    with pytest.raises(IntegrityError, match=r"1 validation cells .*first: A"):
        audit_cells(yielded | {"validation": np.array([3])}, obs, folds)


def test_the_audit_lists_what_the_loader_yields_without_reading_a_count(atlas, monkeypatch):
    train, validation = (PackedSource(atlas.pack, part) for part in ("train", "validation"))
    epochs = {
        "train": train.shuffle(train.order(BATCH, 3), 0),
        "validation": validation.iterate(np.arange(len(validation)), BATCH),
    }
    expected = {
        part: np.concatenate([one.joinid.numpy() for one in epoch])
        for part, epoch in epochs.items()
    }
    monkeypatch.delattr(PackedSource, "read")
    found = list_yielded(train, validation, 3)
    for part, joinid_n in expected.items():
        assert len(joinid_n)
        np.testing.assert_array_equal(found[part], joinid_n)


def test_moments_are_those_of_the_cells_however_they_are_read(monkeypatch):
    unit = make_unit()
    whole, half_n = measure_unit(unit, 4, np.random.default_rng(0))
    values = unit.read(np.arange(len(unit.id_n))).toarray()
    for perturbation, moments in whole.items():
        mine = unit.id_n == perturbation
        np.testing.assert_allclose(moments.mean(), values[mine].mean(axis=0))
        np.testing.assert_allclose(moments.variance(), values[mine].var(axis=0), atol=1e-12)
        for half in (TRUTH, KNOWN):
            chosen = mine & (half_n == half)
            np.testing.assert_allclose(moments.mean(half), values[chosen].mean(axis=0))
        assert abs(int(moments.n_h[0]) - int(moments.n_h[1])) <= 1
        assert moments.n == mine.sum()
    monkeypatch.setattr(pseudobulk, "CHUNK", 3)
    again, _ = measure_unit(unit, 4, np.random.default_rng(0))
    for perturbation, moments in whole.items():
        np.testing.assert_allclose(again[perturbation].square_hg, moments.square_hg)


def test_perturbations_of_too_few_cells_are_left_out():
    unit = make_unit()
    found, _ = measure_unit(unit, 11, np.random.default_rng(0))
    assert set(found) == {CONTROL_ID}
