import numpy as np

from tabatlas.explain.sample import sample_types


def test_every_type_has_its_cells_and_no_type_more_than_its_share():
    label_n = np.repeat([0, 1, 2, -1], [500, 30, 4, 90])
    rows = sample_types(label_n, 30, np.random.default_rng(0))
    assert np.bincount(label_n[rows], minlength=3).tolist() == [30, 30, 4]
    assert (np.diff(rows) > 0).all()


def test_another_generator_draws_other_cells():
    label_n = np.zeros(500, dtype=int)
    one, other = (sample_types(label_n, 50, np.random.default_rng(seed)) for seed in (0, 1))
    assert set(one) != set(other)
