"""Errors that a user can cause, each with the exit code that the command ends with.

A message names the value, the place and the next step. `assert` is for our own mistakes.
"""


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
