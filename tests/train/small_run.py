"""A small but real pretraining that can be killed, run again, and compared."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fork_server import HERE, Forked, ForkServer
from marks import Marks

from tabatlas.provenance import digest_file, digest_files

# Fifty steps with a checkpoint at every second or third one.
KNOBS = {
    "epochs": 10,
    "patience": 10,
    "batch_size": 32,
    "micro_batches": 4,
    "threads": 1,
    "device": "cpu",
    "checkpoint_minutes": 0.0025,
    "architecture": {"n_steps": 2, "n_shared": 1, "n_independent": 1},
    "covariates": [
        {"column": "assay", "as": "input", "width": 4},
        {"column": "batch", "as": "condition", "width": 4},
    ],
}


POLL = 0.0005  # seconds


class Attempt:
    """One process that trains."""

    def __init__(self, process: Forked | subprocess.Popen, marks: Marks, log: Path) -> None:
        self.process, self.marks, self.log = process, marks, log

    def end(self, seconds: float = 300) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def await_phase(self, phase: str, nth: int = 1) -> None:
        """Wait until it has entered a phase so often, or has ended."""
        while self.marks.entered(phase) < nth and self.is_running():
            time.sleep(POLL)

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()


class SmallRun:
    """A run's folder with its settings; attempts are numbered."""

    def __init__(self, pack: Path, folder: Path, **knobs: Any) -> None:
        self.pack, self.folder = pack, folder
        folder.mkdir(parents=True)
        self.settings = folder / "settings.json"
        self.settings.write_text(json.dumps(KNOBS | knobs))
        self.n_attempts = 0

    @property
    def arguments(self) -> list[str]:
        """The arguments of `tabatlas`."""
        paths = {
            "pack": self.pack,
            "settings": self.settings,
            "checkpoints": self.folder / "checkpoints",
            "model": self.folder / "model",
        }
        flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
        return ["pretrain", *flags]

    def start(self, server: ForkServer | None = None, **environment: str) -> Attempt:
        """An attempt by fork, or by an interpreter of its own where there is no server."""
        self.n_attempts += 1
        marks, log = (self.folder / f"{self.n_attempts:03d}.{kind}" for kind in ("marks", "log"))
        noted = Marks(marks)
        if server:
            process = server.start(self.arguments, log, marks, environment)
        else:
            command = [sys.executable, HERE / "watched.py", marks, *self.arguments]
            process = open_process(command, log, environment)
        return Attempt(process, noted, log)

    @property
    def kept(self) -> Path:
        """The folder of the run's checkpoints."""
        (folder,) = (self.folder / "checkpoints").glob("*/")
        return folder

    def ending(self) -> dict[str, str]:
        """Digests of all that a finished run leaves: equal runs have equal ones."""
        last = max(self.kept.glob("checkpoint-*.safetensors"))
        found = {"checkpoint": digest_file(last)}
        found["metrics"] = digest_file(self.kept / "metrics.jsonl")
        written = digest_files(self.folder / "model")
        # Killed in the act, a stage leaves the temporary file of an output.
        return found | {name: one for name, one in written.items() if name[0] != "."}

    def unexpected(self) -> list[str]:
        """What stands among the checkpoints of a finished run and should not."""
        names = sorted(path.name for path in self.kept.iterdir())
        kept = re.compile(
            r"checkpoint-\d{10}-\d{6}\.safetensors|owner-\d{6}\.json|metrics\.jsonl|speed\.jsonl"
        )
        strange = [name for name in names if not kept.fullmatch(name)]
        # Two are kept; killed between the last one's new name and the end of the oldest, three.
        return strange + [name for name in names if name[0] == "c"][3:]


def open_process(command: list[Any], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """A process whose output goes to a log."""
    with open(log, "ab") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
        )
