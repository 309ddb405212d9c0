import numpy as np
import pandas as pd

from tabatlas.integrate.sample import (
    count_left_out,
    describe_cells,
    sample_cells,
)


def make_cells(*groups: tuple[str, str, int]) -> pd.DataFrame:
    """A table of cells from (batch, type, number)."""
    rows = [(batch, label) for batch, label, n in groups for _ in range(n)]
    table = pd.DataFrame(rows, columns=["batch", "cell_type"], dtype="category")
    return table.assign(soma_joinid=np.arange(len(table)))


CELLS = make_cells(
    ("a1", "B cell", 500),
    ("a1", "T cell", 300),
    ("b1", "unknown", 200),
    ("b1", "B cell", 7),
    ("b1", "plasma cell", 5),
)


def test_small_groups_stay_whole_and_cells_without_a_label_are_left_out():
    rows = sample_cells(CELLS, 100, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    kept = CELLS.iloc[rows]
    counts = kept.groupby(["batch", "cell_type"], observed=True).size().to_dict()
    assert counts[("b1", "B cell")] == 7
    assert counts[("b1", "plasma cell")] == 5
    assert abs(counts[("a1", "B cell")] - counts[("a1", "T cell")]) <= 1
    assert "unknown" not in set(kept["cell_type"])
    assert count_left_out(CELLS, rows) == {"unlabeled": 200, "not_sampled": 712}


def test_few_cells_are_all_taken():
    rows = sample_cells(CELLS, 5000, np.random.default_rng(0))
    assert len(rows) == 812
    assert count_left_out(CELLS, rows) == {"unlabeled": 200, "not_sampled": 0}


def test_the_sample_repeats_with_its_generator_only():
    one, again, other = (sample_cells(CELLS, 100, np.random.default_rng(s)) for s in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_cells_without_any_label_give_no_sample():
    cells = make_cells(("a1", "unknown", 20))
    assert len(sample_cells(cells, 10, np.random.default_rng(0))) == 0


def test_types_of_one_batch_are_counted():
    batch_n, label_n = np.array(["a", "a", "b", "b"]), np.array(["B", "T", "B", "B"])
    assert describe_cells(batch_n, label_n) == {
        "n_cells": 4,
        "n_batches": 2,
        "n_types": 2,
        "n_single_batch_types": 1,
    }
