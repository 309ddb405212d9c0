"""Temperature scaling: probabilities that mean what they say (Guo et al. 2017)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

# Beyond these the validation cells say "all right" or "all wrong", not how sure to be.
RANGE = (0.05, 20.0)


def fit_temperature(logits_nc: np.ndarray, label_n: np.ndarray) -> float:
    """The temperature that makes the labels of validation cells most likely; 1 without cells."""
    if not len(label_n):
        return 1.0
    rows = np.arange(len(label_n))

    def surprise(log_temperature: float) -> float:
        scaled = log_softmax(logits_nc / np.exp(log_temperature), axis=1)
        return -float(scaled[rows, label_n].mean())

    found = minimize_scalar(surprise, bounds=tuple(np.log(RANGE)), method="bounded")
    return round(float(np.exp(found.x)), 6)


def calibrate(logits_nc: np.ndarray, temperature: float) -> np.ndarray:
    """Class probabilities (n, c)."""
    return softmax(logits_nc / temperature, axis=1)
