"""Snakemake above a training that is to be disturbed, in a copy of the tiny atlas."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiny_atlas import ROOT, Workdir

SHORT = {"epochs": 40, "patience": 40, "batch_size": 32, "checkpoint_minutes": 0.002}
LONG = SHORT | {"epochs": 250, "patience": 250}
LOCAL = ("--cores", "1")
PRETRAIN = Path("results/tiny/pretrain")
SAME = ("model.safetensors", "metrics.jsonl", "config.json", "scores.json")


@dataclass(frozen=True)
class Training:
    """A folder in which a stage is to train under snakemake."""

    workdir: Workdir
    log: Path
    options: tuple[str, ...]
    stage: str = "pretrain"
    environment: Mapping[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """Where the model will be, from the working directory."""
        return Path("results/tiny") / self.stage

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start snakemake in a group of processes of its own."""
        call = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        call += [*self.options, *options]
        source = {"PYTHONPATH": str(ROOT / "workflow" / "src")}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                call,
                cwd=self.workdir.path,
                env=os.environ | source | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what still runs."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def find_runs(self, pattern: str) -> list[Path]:
        """Files in the folders of runs."""
        folder = self.workdir.path / "results/tiny/checkpoints" / self.stage
        return sorted(folder.glob(f"*/{pattern}"))

    def steps(self) -> dict[int, int]:
        """The last step that has a checkpoint, by the token of the owner who wrote it."""
        names = [path.stem.split("-")[1:] for path in self.find_runs("checkpoint-*.safetensors")]
        return {int(token): int(step) for step, token in sorted(names)}

    def owners(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Tokens of owners that have not ended, and who they are."""
        for path in self.find_runs("owner-*.json"):
            with contextlib.suppress(ValueError, FileNotFoundError):  # released, swept away
                yield int(path.stem[6:]), json.loads(path.read_text())

    def await_trainer(self, step: int, other_than: int = 0) -> int:
        """The pid of the trainer, once there is one that has gone on beyond a step."""
        end = time.monotonic() + 1200
        while time.monotonic() < end and self.started[-1].poll() is None:
            for token, owner in self.owners():
                if owner["pid"] != other_than and self.steps().get(token, 0) >= step:
                    return owner["pid"]
            time.sleep(0.02)
        raise AssertionError(self.read_log())

    def read_log(self) -> str:
        """All that the snakemakes and their jobs printed."""
        return self.log.read_text()

    def read_model(self) -> list[bytes]:
        """The bytes of the model and of its metrics."""
        return [(self.workdir.path / self.model / name).read_bytes() for name in SAME]

    def check_metrics(self) -> None:
        """No step twice, none missing."""
        rows = map(json.loads, (self.workdir.path / self.model / "metrics.jsonl").open())
        steps = [row["step"] for row in rows if "cells" in row]
        assert steps == list(range(len(steps)))


def copy_packed(built: Workdir, path: Path, knobs: dict[str, object]) -> Training:
    """A copy of the tiny atlas, with other knobs and without its models."""
    workdir = Workdir(path / "work")
    shutil.copytree(built.path, workdir.path)
    shutil.rmtree(workdir.path / PRETRAIN)
    shutil.rmtree(workdir.path / "results/tiny/checkpoints")
    target = str(PRETRAIN / "model.safetensors")
    return Training(workdir, path / "log", (target, *workdir.configure(pretrain=knobs)))
