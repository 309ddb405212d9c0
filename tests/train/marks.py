"""Where a trainer is, in a mapped file that outlives it: who kills it knows what was hit."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PHASES = (
    "imports",
    "start",
    "restore",
    "step",
    "validation",
    "checkpoint",
    "renamed",  # of a checkpoint: it has its name, what follows is not done yet
    "metrics",
    "between",
    "outputs",
)
LAYOUT = np.dtype(
    [
        ("phase", "i8"),
        ("step", "i8"),  # steps that were begun, over all attempts
        ("durable", "i8"),  # step of the last checkpoint whose writing has returned
        ("restored", "i8"),  # step of the checkpoint that this attempt began with
        ("entered", "i8", len(PHASES)),
        ("seconds", "f8", len(PHASES)),
        ("imported", "f8", 2),  # CPU seconds and the machine's clock
        ("stepped", "f8", 2),  # the same, when the first step was over
    ]
)


class Marks:
    """The marks of one attempt; the process that trains writes them, others read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(LAYOUT.itemsize))
        self.cells = np.memmap(path, LAYOUT, "r+", shape=1)

    def __getitem__(self, name: str) -> Any:
        return self.cells[name][0]

    def __setitem__(self, name: str, value: int) -> None:
        self.cells[name][0] = value

    @property
    def phase(self) -> str:
        """The phase it is in, or was in when it ended."""
        return PHASES[self["phase"]]

    def enter(self, phase: str) -> None:
        """Note that a phase begins."""
        number = PHASES.index(phase)
        self.cells["entered"][0, number] += 1
        self["phase"] = number

    def entered(self, phase: str) -> int:
        """How often a phase was entered."""
        return int(self.cells["entered"][0, PHASES.index(phase)])

    def mean_seconds(self, phase: str) -> float:
        """Mean duration of a phase."""
        number = PHASES.index(phase)
        return float(self.cells["seconds"][0, number] / max(1, self.cells["entered"][0, number]))

    def note_time(self, moment: str) -> None:
        """Note that a moment is now."""
        self.cells[moment][0] = time.process_time(), time.monotonic()

    def start_seconds(self) -> tuple[float, float]:
        """CPU seconds and seconds from the end of the imports to that of the first step."""
        cpu, wall = self["stepped"] - self["imported"]
        return float(cpu), float(wall)

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Count time towards the mean duration of a phase."""
        self.cells["seconds"][0, PHASES.index(phase)] += seconds

    @contextlib.contextmanager
    def during(self, phase: str | None) -> Iterator[None]:
        """The phase while the block runs, then the one before; none changes nothing."""
        if phase is None:
            yield
            return
        before, begin = self["phase"], time.monotonic()
        self.enter(phase)
        try:
            yield
        finally:
            self.add_seconds(phase, time.monotonic() - begin)
            self["phase"] = before
