"""Checkpoints whose whole content follows from a number, so that each part tells its origin."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from crashes import Operation
from torch import Tensor

from tabatlas.errors import Interrupted
from tabatlas.train import checkpoint
from tabatlas.train.checkpoint import read_newest, write_checkpoint
from tabatlas.train.owner import sweep


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
    sweep(folder, 9, 0)
    write(folder, 100, 100, 9)
    assert read_undamaged(folder) == 100
    assert len(list_names(folder)) == (1 if found < 0 else 2), "something is left over"


class Sleeper:
    """The first owner sleeps before its operation `asleep`, and wakes at `awake` of the second."""

    def __init__(self, folder: Path, asleep: int, awake: int) -> None:
        self.folder, self.asleep, self.awake = folder, asleep, awake
        self.owner = Token(1)
        self.sleeps, self.wakes = threading.Event(), threading.Event()
        self.n_operations = {True: 0, False: 0}
        self.thread = threading.Thread(target=self.write)
        self.errors: list[BaseException] = []

    def write(self) -> None:
        """What the first owner does."""
        try:
            write(self.folder, 2, 15, self.owner)
        except BaseException as error:
            self.errors.append(error)
        self.sleeps.set()

    def fault(self, number: int, operation: Operation) -> None:
        """Let one sleep and the other wake it."""
        is_first = threading.current_thread() is self.thread
        count = self.n_operations[is_first]
        self.n_operations[is_first] += 1
        if is_first and count == self.asleep:
            self.sleeps.set()
            self.wakes.wait()
        elif not is_first and count == self.awake:
            self.wake()

    def wake(self) -> None:
        """Let the first owner go on to its end."""
        self.wakes.set()
        self.thread.join()
