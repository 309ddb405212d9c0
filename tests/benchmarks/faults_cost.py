"""What the engine costs: a checkpoint, the start, and what it adds to a step."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from small_run import SmallRun
from torch import Tensor, nn

from small_atlas import Atlas
from synthetic import make_experiment, make_normalized
from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.pretrain.stage import build_task
from tabatlas.pretrain.task import MaskedGenes
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order, Plan
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.architecture import PRESETS
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.engine import Trainer
from tabatlas.train.schedule import build_optimizer
from tabatlas.train.step import Attend

CPU = torch.device("cpu")
N_GENES = 19_331  # of scTab's network
INTERVAL = 300.0  # seconds between two checkpoints
MANY_STEPS = 500_000  # rows of metrics of a long run
ROUNDS = 5


class Clock:
    """Seconds of a block: `cpu` of all threads, and `wall`."""

    def __enter__(self) -> "Clock":
        self.cpu, self.wall = -time.process_time(), -time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu += time.process_time()
        self.wall += time.monotonic()


def take_median(clocks: Sequence[Clock]) -> dict[str, float]:
    """Median CPU seconds and seconds."""
    kinds = ("cpu", "wall")
    return {
        f"{kind}_s": round(statistics.median(getattr(one, kind) for one in clocks), 4)
        for kind in kinds
    }


class Touch:
    """A task of scTab's network that moves every parameter and costs next to nothing."""

    def __init__(self) -> None:
        generator, preset = seed_generator(CPU, 0), PRESETS["sctab"]
        genes = torch.zeros(N_GENES), torch.ones(N_GENES)
        encoder, decoder = (part(preset, *genes, generator) for part in (Encoder, Decoder))
        self.model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> None:
        """Nothing."""

    def sizes(self, inputs: None) -> tuple[int, ...]:
        """None."""
        return ()

    def loss(self, inputs: None, totals: Sequence[int]) -> Tensor:
        """Something of every parameter."""
        return torch.stack([one.mean() for one in self.model.parameters()]).sum()

    def validate(self, _: Attend = iter) -> dict[str, float]:
        """A number."""
        return {"validation_loss": 1.0}


class Empty:
    """Two cells without counts, again and again."""

    def shuffle(self, order: Order, *_: Any) -> Iterator[Minibatch]:
        """As many minibatches as the order has."""
        zeros_n = torch.zeros(2, dtype=torch.int64)
        columns = dict.fromkeys(("gene", "total_n", "dataset", "label", "joinid"), zeros_n)
        wide = {"level": zeros_n[:, None], "number": zeros_n[:, None]}
        one = Minibatch(indptr=torch.arange(3), count=torch.zeros(2), **columns, **wide)
        yield from [one] * order.n_minibatches


def measure_checkpoint(folder: Path, n_steps: int) -> dict[str, float]:
    """Seconds of a checkpoint of `sctab` after so many steps, and the file's megabytes."""
    knobs = PretrainSettings(epochs=1, batch_size=2, checkpoint_minutes=1e-9)
    trainer = Trainer(Touch(), Empty(), Order(2 * ROUNDS, 2, Plan(1, 1), 0), knobs, CPU, folder)
    row = {"loss": 0.4321098765432101, "gradient_norm": 0.9876543210987654, "cells": "0" * 16}
    for step in range(n_steps):
        place = {"epoch": step // 10_000, "step": step}
        trainer.progress.metrics.append(place | row | {"learning_rate": 0.0012345678901234})
    clocks: list[Clock] = []
    save = trainer.save

    def save_timed() -> None:
        with Clock() as clock:
            save()
        clocks.append(clock)

    trainer.save = save_timed
    trainer.run()
    size = max(path.stat().st_size for path in folder.glob("checkpoint-*"))
    return take_median(clocks) | {"file_mb": size >> 20}


def measure_checkpoints(folder: Path) -> dict[str, Any]:
    """The share of its interval that a checkpoint takes: early in a run, and late."""
    choose_device("cpu", 2)
    early, late = (measure_checkpoint(folder / str(n), n) for n in (0, MANY_STEPS))
    shares = (max(one["cpu_s"], one["wall_s"]) / INTERVAL for one in (early, late))
    names = ("checkpoint_overhead", f"checkpoint_overhead_after_{MANY_STEPS}_steps")
    return dict(zip(names, (round(share, 5) for share in shares), strict=True)) | {
        "checkpoint": {"early": early, "late": late}
    }


def make_demo(folder: Path) -> Atlas:
    """As many cells and genes as the demo atlas has."""
    folder.mkdir()
    sources = [folder / f"{name}.h5ad" for name in "abc"]
    for path in sources:
        make_normalized(path, path.stem, 2000, 2000, n_donors=5)
    make_experiment(folder / "ingest", sources)
    atlas = Atlas(folder)
    atlas.run_split(test_fraction=0.25, validation_fraction=0.1)
    atlas.run_pack()
    return atlas


def measure_start(pack: Path, folder: Path) -> dict[str, Any]:
    """From the end of the imports to the end of the first step, in interpreters of their own.

    Cold: what numba compiles was not compiled before. The larger of CPU seconds and seconds.
    """
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(1 + ROUNDS):
            run = SmallRun(pack, folder / str(number))
            run.settings.write_text(json.dumps({"device": "cpu"}))
            attempt = run.start(NUMBA_CACHE_DIR=cache)
            attempt.await_phase("between")
            attempt.process.kill()
            attempt.end()
            found["warm" if number else "cold"].append(attempt.marks.start_seconds())
    cold, warm = (
        [round(statistics.median(kind), 2) for kind in zip(*found[name], strict=True)]
        for name in ("cold", "warm")
    )
    return {
        "start_seconds": max(warm),
        "start_seconds_cold": max(cold),
        "start_cpu_and_wall_s": {"cold": cold, "warm": warm},
    }


class Alternating:
    """The cells of a source; between two steps of the engine a bare one, on a model of its own."""

    def __init__(self, source: PackedSource, task: MaskedGenes, knobs: PretrainSettings) -> None:
        self.source, self.task = source, task
        self.optimizer = build_optimizer(task.model, knobs.learning_rate, knobs.weight_decay)
        self.bare: list[Clock] = []
        self.engine: list[Clock] = []

    def shuffle(self, order: Order, epoch: int, *place: Any) -> Iterator[Minibatch]:
        """Each minibatch, after a bare step on it."""
        for number, minibatch in enumerate(self.source.shuffle(order, epoch, *place)):
            with Clock() as clock:
                self.take_step(minibatch, number)
            self.bare.append(clock)
            with Clock() as clock:
                yield minibatch
            self.engine.append(clock)

    def take_step(self, minibatch: Minibatch, number: int) -> None:
        """Loss, backward, optimizer."""
        inputs = self.task.draw(minibatch, seed_generator(CPU, number))
        loss = self.task.loss(inputs, self.task.sizes(inputs))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        loss.item()


def measure_engine(pack: Path, folder: Path) -> dict[str, Any]:
    """How many times a bare step an engine's step takes, with all that it does around it."""
    knobs = PretrainSettings(epochs=2, device="cpu", checkpoint_minutes=1e6)
    choose_device("cpu", knobs.threads)
    train, validation = (PackedSource(pack, part) for part in ("train", "validation"))
    ours, bare = (build_task(knobs, train, validation, CPU) for _ in range(2))
    bare.model.train()
    source = Alternating(train, bare, knobs)
    Trainer(ours, source, train.order(knobs.batch_size, knobs.seed), knobs, CPU, folder).run()
    pairs = list(zip(source.engine, source.bare[: len(source.engine)], strict=True))[2:]
    ratios = {
        kind: round(statistics.median(getattr(a, kind) / getattr(b, kind) for a, b in pairs), 3)
        for kind in ("cpu", "wall")
    }
    seconds = {"engine": take_median(source.engine), "bare": take_median(source.bare)}
    return {"engine_over_bare_step": ratios, "step": seconds | {"n_pairs": len(pairs)}}
