"""Checkpoints of a run: the two newest stand in its folder, and a damaged one is passed over.

A name is the step and the token of the run's owner who wrote it: one that was taken over, and
does not know yet, can overwrite or delete nothing of the owner after it.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from tabatlas.errors import IntegrityError, Interrupted
from tabatlas.train.owner import Owner
from tabatlas.train.tensors import is_whole, read_tensors, write_tensors

logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What a checkpoint holds, and where."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Name(NamedTuple):
    """A checkpoint's name; the newest one is the greatest."""

    step: int
    token: int

    def __str__(self) -> str:
        return f"checkpoint-{self.step:010d}-{self.token:06d}.safetensors"


PATTERN = re.compile(r"checkpoint-(\d+)-(\d+)\.safetensors")


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Any, owner: Owner
) -> Path:
    """Write a checkpoint durably; then delete all but it and the good one before it.

    Raises `Interrupted` where the file system refuses, or `owner` is it no longer. The last good
    checkpoint then still stands, and nothing half-written does.
    """
    owner.check()
    new = Name(step, owner.token)
    path = folder / str(new)
    with resumable(path, owner):
        write_tensors(tensors, state, path, owner.check)
        remove_others(folder, new)
    return path


def remove_others(folder: Path, new: Name) -> None:
    """Delete the checkpoints of this owner and those before it, but for `new` and the one before.

    One of a later step was passed over as damaged, or was finished by an owner that had been
    taken over; the run comes by there again.
    """
    others = [one for one in list_files(folder) if one.name != new and one.name.token <= new.token]
    # What this owner wrote was read back; what it found may be damaged.
    before = (one for one in others if one.name < new)
    kept = next((one for one in before if one.name.token == new.token or one.is_good()), None)
    for one in others:
        if one != kept:
            one.path.unlink(missing_ok=True)


def read_newest(folder: Path) -> Checkpoint | None:
    """The newest good checkpoint; None only where there is none at all.

    A damaged one is reported and passed over. Raises `IntegrityError` where all are damaged.
    """
    found = list_files(folder)
    for one in found:
        try:
            return read_checkpoint(one.path)
        except IntegrityError as error:
            logger.warning("%s Until then the checkpoint before it is taken.", error)
    if found:
        raise IntegrityError(
            f"{folder}: all of its checkpoints ({len(found)}) are damaged. Restore one from a "
            "copy, or delete the folder to start from zero."
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint. Raises `IntegrityError` where it is damaged."""
    return Checkpoint(path, *read_tensors(path))


@contextlib.contextmanager
def resumable(path: Path, owner: Owner) -> Iterator[None]:
    """End the run as `Interrupted` where the file system refuses what the block writes."""
    try:
        yield
    except OSError as error:
        owner.check()  # who took the run over may have removed what is missing here
        raise Interrupted(
            f"{path}: not written ({error}). Last good checkpoint: {find_good(path.parent)}. "
            "Make room there, or make the folder writable, and run it again."
        ) from None


def find_good(folder: Path) -> str:
    """The newest good checkpoint, for a message."""
    try:
        good = (str(one.path) for one in list_files(folder) if one.is_good())
        return next(good, "none yet")
    except OSError as error:
        return f"unknown ({error})"


class Stored(NamedTuple):
    """A file of a checkpoint."""

    name: Name
    path: Path

    def is_good(self) -> bool:
        """Whether it can be read and is not damaged."""
        try:
            return is_whole(self.path.read_bytes())
        except OSError:
            return False


def list_files(folder: Path) -> list[Stored]:
    """All checkpoints, the newest first; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (one for one in map(PATTERN.fullmatch, names) if one)
    files = (Stored(Name(int(one[1]), int(one[2])), folder / one.string) for one in found)
    return sorted(files, reverse=True)
