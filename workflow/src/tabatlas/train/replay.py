"""Curves of a run for TensorBoard, written from its metrics whenever somebody wants to look."""

import datetime
import tempfile
from pathlib import Path
from typing import Annotated, Any

from tabatlas.errors import InputError, UsageError
from tabatlas.provenance import read_rows
from tabatlas.train.pace import SPEED

SUFFIX = ".tabatlas"  # what a repeat may replace in the folder


def run(
    metrics: Annotated[Path, "metrics.jsonl of a model, or of a run that is under way"],
    /,
    logs: Annotated[Path, "folder for TensorBoard's files, one per run; those there are replaced"],
) -> None:
    """Write TensorBoard's files from metrics.jsonl, and from speed.jsonl beside it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"{error}. Install it: pip install tensorboard") from None
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=logs) as aside:
        with SummaryWriter(aside, max_queue=1000, filename_suffix=SUFFIX) as writer:
            for row in read_rows(metrics):
                if "step" not in row:
                    raise InputError(f"{metrics}: a row has no `step`. Give a training's metrics.")
                for name, value in numbers_of(row).items():
                    writer.add_scalar(name, value, row["step"])
            speed = metrics.with_name(SPEED)
            for row in read_rows(speed, live=True) if speed.exists() else ():
                time = datetime.datetime.fromisoformat(row["time"]).timestamp()
                for name, value in numbers_of(row).items():
                    writer.add_scalar(f"speed/{name}", value, row["step"], time)
        before = list(logs.glob(f"events.*{SUFFIX}"))
        for path in Path(aside).iterdir():
            path.replace(logs / path.name)
        for path in before:
            path.unlink()


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """The values of a row that make a curve."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("epoch", "step")
    }
