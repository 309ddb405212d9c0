"""Covariates as the training cells show them: levels, mean and deviation."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tabatlas import names
from tabatlas.errors import ConfigError
from tabatlas.stream.columns import Cells
from tabatlas.tabnet.covariates import Covariate


class Wish(Protocol):
    """What the configuration says of a covariate."""

    column: str
    role: str
    width: int


def describe_covariates(wishes: Sequence[Wish], cells: Cells) -> tuple[Covariate, ...]:
    """The covariates that a network is built with, learned from its training cells.

    Raises `ConfigError` for a column that tells nothing.
    """
    return tuple(describe_covariate(wish, cells) for wish in wishes)


def describe_covariate(wish: Wish, cells: Cells) -> Covariate:
    """One covariate: the levels of a text, mean and deviation of a number."""
    if wish.column in names.NUMERICAL:
        values = np.asarray(cells.columns[wish.column], dtype=np.float64)
        mean, deviation = float(values.mean()), float(values.std())
        if not deviation > 0:
            raise ConfigError(
                f"covariate `{wish.column}` is {mean:g} in every training cell. Leave it out."
            )
        return Covariate(wish.column, wish.role, mean=mean, deviation=deviation)
    levels = tuple(sorted(set(cells.count_levels(wish.column).index) - {names.UNKNOWN}))
    if not levels:
        raise ConfigError(
            f"covariate `{wish.column}` is unknown in every training cell. Leave it out, or name "
            "its column in the dataset table."
        )
    return Covariate(wish.column, wish.role, levels, wish.width)
