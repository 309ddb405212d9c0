"""The engine: epochs over minibatches, early stopping, checkpoint and resume.

A step is (seed, epoch, step): the minibatch and every random draw follow from these numbers, so a
run that was stopped continues as if it had not been.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.errors import IntegrityError, Interrupted, ModelError
from tabatlas.provenance import digest_json, stage_digest
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order
from tabatlas.train.device import seed_generator
from tabatlas.train.schedule import build_optimizer, scale_rate
from tabatlas.train.tensors import (
    load_weights,
    name_part,
    pack_optimizer,
    pick,
    read_tensors,
    unpack_optimizer,
    write_tensors,
)

logger = logging.getLogger(__name__)


# Knobs that change how fast a run is and nothing that it learns.
SPEED = ("loader_threads", "loader_bytes", "checkpoint_minutes")


class Source(Protocol):
    """Where minibatches come from."""

    def shuffle(self, order: Order, epoch: int, first: int = 0) -> Iterator[Minibatch]:
        """Minibatches of one epoch in that order, from number `first` on."""


class Task(Protocol):
    """What is trained: a model, its loss, and its validation."""

    model: nn.Module

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> Any:
        """What the network takes: everything that is random is drawn here."""

    def sizes(self, inputs: Any) -> tuple[int, ...]:
        """What the loss's means divide by, of these cells."""

    def loss(self, inputs: Any, totals: Sequence[int]) -> Tensor:
        """These cells' part of the loss of all that `totals`, sums of `sizes`, count."""

    def validate(self) -> dict[str, float]:
        """Scores on the validation cells; `validation_loss` decides about early stopping."""


class Knobs(Protocol):
    """The settings that the engine reads; see `train.settings` for their meaning."""

    seed: int
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    clip_norm: float
    ema: float
    checkpoint_minutes: float


@dataclass
class Progress:
    """Where a run stands: everything that a checkpoint keeps beside the tensors."""

    epoch: int = 0
    step: int = 0  # over all epochs
    minibatch: int = 0  # within the epoch
    loss_sum: float = 0.0  # over the epoch's cells so far
    best_epoch: int = -1
    best_loss: float = float("inf")
    metrics: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One training run: `run()` returns its progress, the model then holds the best weights."""

    def __init__(
        self,
        task: Task,
        source: Source,
        order: Order,
        knobs: Knobs,
        device: torch.device,
        folder: Path,
    ) -> None:
        self.task, self.source, self.order, self.knobs = task, source, order, knobs
        self.device = device
        self.path = folder / "checkpoint.safetensors"
        self.progress = Progress()
        self.optimizer = build_optimizer(task.model, knobs.learning_rate, knobs.weight_decay)
        self.average, self.best = copy_weights(task.model), copy_weights(task.model)
        self.saved_at = time.monotonic()
        self.signal: int | None = None

    def run(self) -> Progress:
        """Train to the end, from the last checkpoint if there is one."""
        if self.path.exists():
            self.restore()
        with self.listening():
            while self.progress.epoch < self.knobs.epochs and not self.is_stale():
                self.train_epoch()
                self.close_epoch()
        load_weights(self.task.model, self.best, str(self.path))
        return self.progress

    def is_stale(self) -> bool:
        """Whether as many epochs as the patience went by without a better validation loss."""
        seen = self.progress.epoch - 1 - self.progress.best_epoch
        return self.progress.best_epoch >= 0 and seen >= self.knobs.patience

    def train_epoch(self) -> None:
        """All minibatches of the epoch that have not been seen yet."""
        self.task.model.train()
        now = self.progress
        for minibatch in self.source.shuffle(self.order, now.epoch, now.minibatch):
            loss = self.train_step(minibatch.to(self.device))
            if not np.isfinite(loss):
                raise ModelError(
                    f"the loss is {loss} at epoch {now.epoch}, step {now.step} (cells "
                    f"{minibatch.joinid[:5].tolist()} …). Lower learning_rate and start again; "
                    f"the last good checkpoint is {self.path}."
                )
            now.loss_sum += loss * len(minibatch)
            now.step += 1
            now.minibatch += 1
            self.save_if_due()

    def train_step(self, minibatch: Minibatch) -> float:
        """One step of the optimizer; returns the loss."""
        rate = self.current_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = seed_generator(self.device, self.knobs.seed, self.progress.step)
        inputs = self.task.draw(minibatch, generator)
        loss = self.task.loss(inputs, self.task.sizes(inputs))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.model.parameters(), self.knobs.clip_norm)
        self.optimizer.step()
        self.update_average()
        return loss.item()

    def update_average(self) -> None:
        """Let the average follow the weights: closely at first, then over 1 / (1 − ema) steps."""
        step = self.progress.step
        decay = min(self.knobs.ema, (1 + step) / (10 + step))
        pairs = [
            (self.average[name], tensor)
            for name, tensor in self.task.model.state_dict().items()
            if tensor.is_floating_point()  # not a counter of batches
        ]
        # One kernel for all of them: hundreds of small ones would stall a GPU.
        torch._foreach_lerp_(*map(list, zip(*pairs, strict=True)), 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights while the block runs."""
        trained = copy_weights(self.task.model)
        self.task.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.task.model.load_state_dict(trained)

    def current_rate(self) -> float:
        """The learning rate of the current step."""
        n_steps = self.knobs.epochs * self.order.n_minibatches
        return self.knobs.learning_rate * scale_rate(self.progress.step, n_steps, self.knobs.warmup)

    def close_epoch(self) -> None:
        """Validate, keep the best weights, write the metrics and a checkpoint."""
        now = self.progress
        self.task.model.eval()
        with self.averaged():
            scores = self.task.validate()
        if not np.isfinite(scores["validation_loss"]):
            raise ModelError(
                f"the validation loss is {scores['validation_loss']} after epoch {now.epoch}. "
                f"Lower learning_rate; the last good checkpoint is {self.path}."
            )
        place = {"epoch": now.epoch, "step": now.step}
        train_loss = now.loss_sum / self.order.n_cells
        now.metrics += [
            place | {"train_loss": train_loss, "learning_rate": self.current_rate()},
            place | scores,
        ]
        if scores["validation_loss"] < now.best_loss:
            now.best_epoch, now.best_loss = now.epoch, scores["validation_loss"]
            self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        logger.info(
            "epoch %d/%d: loss %.4f, %s",
            now.epoch + 1,
            self.knobs.epochs,
            train_loss,
            ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items()),
        )
        now.epoch, now.minibatch, now.loss_sum = now.epoch + 1, 0, 0.0
        self.save()
        self.stop_if_told()

    def save_if_due(self) -> None:
        """A checkpoint within the epoch, after some minutes or when a signal came."""
        if self.signal or time.monotonic() - self.saved_at > 60 * self.knobs.checkpoint_minutes:
            self.save()
        self.stop_if_told()

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = (
            name_part(self.task.model.state_dict(), "model")
            | name_part(self.average, "average")
            | name_part(self.best, "best")
            | name_part(pack_optimizer(self.optimizer), "optimizer")
        )
        state = asdict(self.progress) | {"plan": asdict(self.order.plan)}
        if self.progress.best_epoch < 0:
            del state["best_loss"]  # infinite: no JSON number
        write_tensors(tensors, state, self.path)
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Continue where the checkpoint stands."""
        tensors, state = read_tensors(self.path)
        if state.pop("plan") != asdict(self.order.plan):
            raise IntegrityError(
                f"{self.path}: a run by another order of the cells. Delete it to start again."
            )
        self.progress = Progress(**state)
        load_weights(self.task.model, pick(tensors, "model"), str(self.path))
        unpack_optimizer(self.optimizer, pick(tensors, "optimizer"))
        # Into the tensors at hand, which lie in memory as the model's own do.
        for part, weights in (("average", self.average), ("best", self.best)):
            for name, tensor in pick(tensors, part).items():
                weights[name].copy_(tensor)
        logger.info("resuming at epoch %d, step %d", self.progress.epoch, self.progress.step)

    def listening(self) -> "Listening":
        """A context in which a signal of `STOPPING` ends the run after the step."""
        return Listening(self)

    def stop_if_told(self) -> None:
        """End resumably after a signal; the checkpoint is written by then."""
        if self.signal:
            name = signal.Signals(self.signal).name
            raise Interrupted(f"stopped by {name} at step {self.progress.step}; run it again.")


# Slurm warns with USR1 or TERM before it kills.
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Listening:
    """Notes SIGTERM, SIGUSR1 and Ctrl-C in the trainer while the block runs."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        self.before = {number: signal.signal(number, self.note) for number in STOPPING}

    def note(self, number: int, frame: object) -> None:
        """Remember the signal."""
        self.trainer.signal = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def key_run(
    stage: str, settings: dict[str, Any], device: torch.device, inputs: dict[str, str]
) -> str:
    """Name of a run's checkpoints: a digest of everything that its weights depend on."""
    key = {
        "settings": {name: value for name, value in settings.items() if name not in SPEED},
        "inputs": inputs,
        "code": stage_digest(stage),
        "device": device.type,
        "torch": torch.__version__,
    }
    return digest_json(key)[:16]


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
