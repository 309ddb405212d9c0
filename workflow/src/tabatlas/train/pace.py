"""How fast a run goes: a bar on a terminal, else a line now and then, and `speed.jsonl`.

Nothing of it is part of a result: no digest holds it.
"""

import contextlib
import json
import logging
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from tabatlas.train.checkpoint import resumable
from tabatlas.train.owner import Owner

logger = logging.getLogger(__name__)

SPEED = "speed.jsonl"
INTERVAL = 30.0  # seconds between two lines

Item = TypeVar("Item")


class Pace:
    """Measures a run from one interval to the next; a rank that owns no folder is mute."""

    def __init__(self, folder: Path, device: torch.device, owner: Owner | None) -> None:
        self.path, self.device, self.owner = folder / SPEED, device, owner
        self.bar: Any = None
        self.saved_at = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Start an interval."""
        self.since = time.monotonic()
        self.n_cells = 0
        self.spent = dict.fromkeys(("waiting", "validating", "saving"), 0.0)

    @contextlib.contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """A context whose time counts as that of waiting for cells, of validating or of saving."""
        start = time.monotonic()
        yield
        self.spent[what] += time.monotonic() - start
        if what == "saving":
            self.saved_at = time.monotonic()

    def await_each(self, coming: Iterator[Item]) -> Iterator[Item]:
        """Each of what comes; the time that it takes to come counts as waiting."""
        nothing = object()
        while True:
            with self.spending("waiting"):
                item = next(coming, nothing)
            if item is nothing:
                return
            yield item

    def unsaved(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self.saved_at

    @contextlib.contextmanager
    def show_bar(self, title: str, n_done: int, n_steps: int) -> Iterator[None]:
        """A bar of an epoch while the block runs, on a terminal only."""
        if self.owner is None or not sys.stderr.isatty():
            yield
            return
        from tqdm import tqdm  # not where nobody looks, nor where it is missing
        from tqdm.contrib.logging import logging_redirect_tqdm

        with (
            logging_redirect_tqdm(),
            tqdm(desc=title, initial=n_done, total=n_steps, unit="step", leave=False) as self.bar,
        ):
            yield
        self.bar = None

    def count(self, title: str, step: int, loss: float, n_cells: int) -> None:
        """A step is done: move the bar, and write a row when an interval is over."""
        self.n_cells += n_cells
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self.bar.update()
        if self.owner is not None and time.monotonic() - self.since >= INTERVAL:
            row = self.write(step, self.owner)
            if self.bar is None:
                speed, waiting = row["cells_per_second"], row["waiting_share"]
                logger.info(
                    "%s: step %d, loss %.4f, %.0f cells/s, %.0f %% of the time waiting for cells",
                    *(title, step, loss, speed, 100 * waiting),
                )

    def close(self, step: int) -> None:
        """Write the row of an interval that the end cut short."""
        if self.owner is not None and self.n_cells:
            self.write(step, self.owner)

    def write(self, step: int, owner: Owner) -> dict[str, Any]:
        """Append a row about the interval that ends here, and start the next."""
        seconds = time.monotonic() - self.since
        row = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "step": step,
            "seconds": round(seconds, 3),
            "cells_per_second": round(self.n_cells / seconds, 1),
            **{f"{what}_share": round(spent / seconds, 4) for what, spent in self.spent.items()},
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }
        if self.device.type == "cuda":
            row["gpu_memory_mb"] = torch.cuda.max_memory_allocated() >> 20
        with resumable(self.path, owner):
            owner.check()
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
        self.begin()
        return row
