"""Which cells are explained: a sample with every type in it."""

import numpy as np

from tabatlas.scores.baselines import draw_turns


def sample_types(label_n: np.ndarray, cells_per_type: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of at most `cells_per_type` cells of each label; cells without one (−1) are left out."""
    labeled = np.flatnonzero(label_n >= 0)
    order, turn = draw_turns(label_n[labeled], rng)
    return labeled[np.sort(order[turn < cells_per_type])]
