"""Checkpoints whose whole content follows from a number, so that each part tells its origin."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from tabatlas.errors import Interrupted
from tabatlas.train import checkpoint
from tabatlas.train.checkpoint import read_newest, write_checkpoint


class Token:
    """An owner as `write_checkpoint` sees it."""

    def __init__(self, token: int = 1) -> None:
        self.token, self.is_lost = token, False

    def check(self) -> None:
        if self.is_lost:
            raise Interrupted("the run has another owner")


def make_tensors(version: int) -> dict[str, Tensor]:
    """Tensors of several types that tell the version."""
    return {
        "model/weight": torch.full((2, 3), float(version)),
        "count": torch.tensor(version),
        "metrics": torch.full((5,), version, dtype=torch.uint8),
    }


def write(folder: Path, version: int, step: int, owner: Token | int = 1) -> Path:
    """Write a checkpoint."""
    owner = owner if isinstance(owner, Token) else Token(owner)
    state = {"version": version, "step": step}
    return write_checkpoint(folder, step, make_tensors(version), state, owner)


def read(folder: Path) -> int:
    """The version of the newest checkpoint, whose every part is of that version; −1 for none."""
    found = read_newest(folder)
    if found is None:
        return -1
    assert found.state.keys() == {"version", "step"}
    version = found.state["version"]
    assert found.tensors.keys() == make_tensors(0).keys()
    assert all((tensor == version).all() for tensor in found.tensors.values())
    assert f"-{found.state['step']:010d}-" in found.path.name
    return version


def read_undamaged(folder: Path) -> int:
    """As `read`, where no checkpoint may be damaged."""
    with undamaged():
        return read(folder)


@contextlib.contextmanager
def undamaged() -> Iterator[None]:
    """A context in which no checkpoint is passed over."""

    def fail(text: str, *values: object) -> NoReturn:
        raise AssertionError("a damaged checkpoint: " + text % values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.logger, "warning", fail)
        yield


def list_names(folder: Path) -> list[str]:
    """Names of the files, sorted."""
    return sorted(os.listdir(folder))


def check_recovery(folder: Path, saved: int) -> None:
    """Nothing that was saved is lost, nothing is damaged, and the next owner goes on."""
    found = read_undamaged(folder)
    assert found >= saved, f"version {saved} was saved, and {found} is found"
    write(folder, 100, 100, 9)
    assert read_undamaged(folder) == 100
    assert len(list_names(folder)) == (1 if found < 0 else 2), "something is left over"
