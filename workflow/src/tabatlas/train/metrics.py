"""`metrics.jsonl`: one row per step and one per epoch, deterministic values only.

Its text is part of the checkpoint and the file is written from there: it can hold no step twice
and miss none, whenever a run is killed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabatlas.provenance import atomic_path

METRICS = "metrics.jsonl"


@dataclass
class Metrics:
    """The rows of a run up to now, as text."""

    text: bytearray = field(default_factory=bytearray)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.text += json.dumps(row, allow_nan=False).encode() + b"\n"

    def rows(self) -> list[dict[str, Any]]:
        """All rows."""
        return [json.loads(line) for line in self.text.splitlines()]

    def write(self, folder: Path, check: Callable[[], None] = lambda: None) -> None:
        """Write `metrics.jsonl`; `check` has the last word before it takes its name."""
        with atomic_path(folder / METRICS) as temporary:
            temporary.write_bytes(self.text)
            check()

    def to_tensor(self) -> Tensor:
        """The text as bytes (n,) uint8."""
        return torch.tensor(np.frombuffer(self.text, dtype=np.uint8))

    @classmethod
    def from_tensor(cls, text: Tensor) -> "Metrics":
        """What `to_tensor` gave."""
        return cls(bytearray(text.numpy().tobytes()))
