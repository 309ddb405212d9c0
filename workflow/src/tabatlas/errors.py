"""Errors that a user can cause, each with the exit code that the command ends with.

A message names the value, the place and the next step. `assert` is for our own mistakes.
"""

from collections.abc import Iterable
from itertools import islice

SHOWN = 80  # characters of a value that a message shows


class TabatlasError(Exception):
    """Base of every error that ends in one message instead of a traceback."""

    exit_code = 1


class UsageError(TabatlasError):
    """A wrong command line."""

    exit_code = 2


class ConfigError(UsageError):
    """A wrong setting or dataset row."""


class InputError(TabatlasError):
    """A file that cannot be used."""

    exit_code = 3


class CountsError(InputError):
    """A matrix that does not hold raw counts."""


class GeneMismatchError(InputError):
    """Genes that do not fit the atlas."""


class ModelError(TabatlasError):
    """A model or a store that is damaged, stale or of another format."""

    exit_code = 4


class IntegrityError(ModelError):
    """Stored bytes that are not those that were written."""


class Interrupted(TabatlasError):
    """A run that was told to stop and can be resumed."""

    exit_code = 75


def show(value: object) -> str:
    """A value of a user's file on one line of bounded length, without characters that act."""
    text = str(value)
    text = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def show_some(values: Iterable[object], most: int = 10) -> str:
    """The first of many values, and how many more there are; `none` where there is none."""
    waiting = iter(values)
    shown = [show(value) for value in islice(waiting, most)]
    more = sum(1 for _ in waiting)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none"
