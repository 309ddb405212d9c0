"""The command `tabatlas` with marks that say where it is, and with faults where tests ask for them.

    python watched.py MARKS pretrain --pack …

`LEASE_SECONDS` in the environment shortens the owner's lease, `NAN_STEP` makes the loss of a step
no number, `MOST_FILE_BYTES` is the size that no file may exceed, `VALIDATION_SECONDS` is how long a
minibatch of a validation takes.
"""

import functools
import importlib
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marks import Marks


def import_all() -> None:
    """Import what a pretraining imports sooner or later, and digest its sources."""
    from tabatlas.provenance import stage_digest

    for name in ("tabatlas.pretrain.stage", "torch._dynamo", "torch.distributed"):
        importlib.import_module(name)
    stage_digest("pretrain")


def watch(marks: Marks) -> None:
    """Put marks into the engine; what it calculates and writes stays as it is."""
    from tabatlas.train import engine, metrics

    def end_step(_: None, trainer: engine.Trainer, *__: Any) -> None:
        if not marks.entered("between"):
            marks.note_time("stepped")
            marks.add_seconds("start", marks.start_seconds()[1])
        marks["step"] = trainer.progress.step
        marks.enter("between")

    def end_checkpoint(path: Path, *_: Any) -> None:
        marks["durable"] = int(path.name.split("-")[1])

    def end_restoring(found: Any, *_: Any) -> None:
        marks["restored"] = marks["step"] = found.state["step"] if found else 0

    def end_rename(*_: Any) -> None:
        if marks.phase == "checkpoint":
            marks.enter("renamed")

    wrap = functools.partial(wrap_function, marks)
    wrap(engine.Trainer, "train_step", "step", end_step)
    wrap(engine.Trainer, "validate", "validation")
    wrap(engine, "write_checkpoint", "checkpoint", end_checkpoint)
    wrap(engine, "read_newest", "restore", end_restoring)
    wrap(metrics.Metrics, "write", "metrics")
    wrap(engine.Trainer, "run", None, lambda *_: marks.enter("outputs"))
    wrap(os, "replace", None, end_rename)
    marks.enter("start")
    marks.note_time("imported")


def wrap_function(
    marks: Marks, owner: Any, name: str, phase: str | None, then: Callable[..., None] | None = None
) -> None:
    """Mark a phase while a function runs; `then` gets its result and its arguments."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def marked(*arguments: Any, **named: Any) -> Any:
        with marks.during(phase):
            result = function(*arguments, **named)
        if then:
            then(result, *arguments)
        return result

    setattr(owner, name, marked)


def plant_faults() -> None:
    """What the environment asks for."""
    from tabatlas.pretrain.task import MaskedGenes
    from tabatlas.train import engine, owner

    if "LEASE_SECONDS" in os.environ:
        owner.LEASE = float(os.environ["LEASE_SECONDS"])
        owner.BEAT = owner.LEASE / 10
    if "MOST_FILE_BYTES" in os.environ:
        most = int(os.environ["MOST_FILE_BYTES"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if "NAN_STEP" in os.environ:
        calls, loss = iter(range(1 << 60)), MaskedGenes.loss
        wanted = int(os.environ["NAN_STEP"])
        MaskedGenes.loss = lambda *arguments: (
            loss(*arguments) * (float("nan") if next(calls) == wanted else 1.0)
        )
    if "VALIDATION_SECONDS" in os.environ:
        attend, seconds = engine.Trainer.attend, float(os.environ["VALIDATION_SECONDS"])
        engine.Trainer.attend = lambda trainer, minibatches: attend(
            trainer, (time.sleep(seconds) or one for one in minibatches)
        )


def main(arguments: list[str]) -> None:
    """Run the command; the first argument is the file of marks."""
    from tabatlas import cli

    importlib.import_module("tabatlas.pretrain.stage")
    watch(Marks(Path(arguments[0])))
    plant_faults()
    sys.argv[1:] = arguments[1:]
    cli.main()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main(sys.argv[1:])
