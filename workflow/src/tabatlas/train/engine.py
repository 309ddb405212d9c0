"""The engine: epochs of steps, early stopping, checkpoint and resume, on one process or many ranks.

A step is (seed, epoch, number): the minibatch and every random draw follow from these, so a run
that was killed at any instant continues as if it had not been.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.errors import ConfigError, IntegrityError, Interrupted, ModelError
from tabatlas.provenance import digest_json, stage_digest, write_json
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order
from tabatlas.stream.source import Source
from tabatlas.train.checkpoint import (
    read_checkpoint,
    read_newest,
    resumable,
    write_checkpoint,
)
from tabatlas.train.metrics import METRICS, Metrics
from tabatlas.train.owner import Owner, own
from tabatlas.train.pace import Pace
from tabatlas.train.ranks import join_ranks
from tabatlas.train.schedule import build_optimizer, scale_rate
from tabatlas.train.signals import BrokenOff, Listening, Watchdog
from tabatlas.train.step import Knobs, Outcome, Stepper, Task
from tabatlas.train.tensors import (
    digest_tensors,
    load_weights,
    name_part,
    pack_optimizer,
    pick,
    unpack_optimizer,
)

logger = logging.getLogger(__name__)


# They change how fast a run is and nothing that it learns.
SPEED_KNOBS = ("loader_threads", "loader_bytes", "checkpoint_minutes", "hang_minutes")


@dataclass
class Progress:
    """Where a run stands: everything that a checkpoint keeps beside weights and moments."""

    epoch: int = 0
    step: int = 0  # over all epochs
    minibatch: int = 0  # within the epoch
    loss_sum: float = 0.0  # over the epoch's cells so far
    best_epoch: int = -1
    best_loss: float | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def describe(self) -> dict[str, Any]:
        """The numbers."""
        return {name: value for name, value in vars(self).items() if name != "metrics"}


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
        self.device, self.folder = device, folder
        self.progress = Progress()
        self.optimizer = build_optimizer(task.model, knobs.learning_rate, knobs.weight_decay)
        self.average, self.best = copy_weights(task.model), copy_weights(task.model)
        self.owner: Owner | None = None  # of the first rank
        if knobs.micro_batches * order.n_minibatches > order.n_cells:
            raise ConfigError(
                f"micro_batches: {knobs.micro_batches}: a minibatch has fewer cells "
                f"({order.n_cells // order.n_minibatches}). Lower it, or raise batch_size."
            )

    def run(self) -> Progress:
        """Train to the end, from the newest checkpoint if there is one.

        Raises `Interrupted` where the run was told to stop, where another process owns its folder,
        and where a rank is lost. Only the first rank returns: the others are done.
        """
        minutes = self.knobs.hang_minutes
        with (
            Watchdog(minutes) as self.watchdog,
            join_ranks(self.device, 2 * minutes) as self.ranks,
            own(self.folder) if self.ranks.is_first else contextlib.nullcontext() as self.owner,
            Listening() as self.signals,
        ):
            self.stepper = Stepper(self.task, self.optimizer, self.ranks, self.knobs)
            self.pace = Pace(self.folder, self.device, self.owner)
            self.restore()
            while self.progress.epoch < self.knobs.epochs and not self.is_stale():
                self.train_epoch()
                self.close_epoch()
            self.pace.close(self.progress.step)
        if not self.ranks.is_first:
            sys.exit()  # well: what comes after the training is the first rank's
        load_weights(self.task.model, self.best, str(self.folder))
        return self.progress

    def is_stale(self) -> bool:
        """Whether as many epochs as the patience went by without a better validation loss."""
        seen = self.progress.epoch - 1 - self.progress.best_epoch
        return self.progress.best_epoch >= 0 and seen >= self.knobs.patience

    def train_epoch(self) -> None:
        """All minibatches of the epoch that have not been seen yet."""
        self.task.model.train()
        now, share = self.progress, self.stepper.share
        coming = self.source.shuffle(self.order, now.epoch, now.minibatch, share)
        n_left = self.order.n_minibatches - now.minibatch
        minibatches = (list(islice(coming, share.n_own)) for _ in range(n_left))
        with self.pace.show_bar(self.title, now.minibatch, self.order.n_minibatches):
            for micro_batches in self.pace.await_each(minibatches):
                self.train_step(micro_batches)
                self.pause()

    @property
    def title(self) -> str:
        """The epoch, for the eye."""
        return f"epoch {self.progress.epoch + 1}/{self.knobs.epochs}"

    def train_step(self, micro_batches: Sequence[Minibatch]) -> None:
        """One step of the optimizer, its row of the metrics, and what follows the weights."""
        now, rate = self.progress, self.current_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            outcome = self.stepper.take(micro_batches, now.epoch, now.minibatch)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"batch_size: {self.knobs.batch_size}: its cells have no room on the GPU "
                f"({str(error).splitlines()[0]}). Raise micro_batches, so that fewer are there at "
                "once, or lower batch_size."
            ) from None
        if not outcome.is_finite:
            self.refuse(outcome, micro_batches)
        self.update_average()
        now.metrics.append(
            {"epoch": now.epoch, "step": now.step, "loss": outcome.loss}
            | {"gradient_norm": outcome.gradient_norm, "learning_rate": rate}
            | {"cells": outcome.cells}
        )
        now.loss_sum += outcome.loss * outcome.n_cells
        now.step += 1
        now.minibatch += 1
        self.watchdog.feed()
        self.pace.count(self.title, now.step, outcome.loss, outcome.n_cells)

    def refuse(self, outcome: Outcome, micro_batches: Sequence[Minibatch]) -> NoReturn:
        """Keep the cells of a step whose loss or gradient is no number, and raise `ModelError`."""
        now = self.progress
        if self.owner is not None:
            self.owner.check()
        path = self.folder / f"not-finite-{now.step}-rank{self.ranks.rank}.json"
        joinids = [one.joinid.tolist() for one in micro_batches]
        found = {"loss": repr(outcome.loss), "gradient_norm": repr(outcome.gradient_norm)}
        try:
            write_json({"epoch": now.epoch, "step": now.step, "joinids": joinids} | found, path)
            kept = f"are in {path}"
        except OSError as error:  # of the two faults this is the lesser one
            kept = f"could not be kept ({error})"
        raise ModelError(
            f"the loss is {outcome.loss} and the gradient's norm {outcome.gradient_norm} at epoch "
            f"{now.epoch}, step {now.step}. The cells {kept}; the checkpoints in {self.folder} are "
            "good. Lower learning_rate and start again."
        )

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
        try:
            scores = self.validate()
        except BrokenOff:  # the next run repeats it
            self.stop()
        for name, value in scores.items():
            if not np.isfinite(value):
                raise ModelError(
                    f"the {name.replace('_', ' ')} is {value} after epoch {now.epoch}. Lower "
                    f"learning_rate and start again; the checkpoints in {self.folder} are good."
                )
        place = {"epoch": now.epoch, "step": now.step}
        train_loss = now.loss_sum / self.order.n_cells
        now.metrics.append(place | {"train_loss": train_loss} | scores)
        if now.best_loss is None or scores["validation_loss"] < now.best_loss:
            now.best_epoch, now.best_loss = now.epoch, scores["validation_loss"]
            self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        told = (f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
        logger.info("%s: loss %.4f, %s", self.title, train_loss, ", ".join(told))
        now.epoch, now.minibatch, now.loss_sum = now.epoch + 1, 0, 0.0
        self.pause(must_save=True)

    def validate(self) -> dict[str, float]:
        """Scores of the averaged weights, which the first rank finds; the others keep it company.

        Raises `BrokenOff` on all of them where any heard a signal.
        """
        scores = None
        if self.ranks.is_first:
            self.task.model.eval()
            with self.pace.spending("validating"), self.averaged():
                scores = self.task.validate(self.attend)
        while not self.beat(is_over=scores is not None):
            pass
        return self.ranks.tell(scores)

    def attend(self, minibatches: Iterable[Minibatch]) -> Iterator[Minibatch]:
        """The minibatches of a validation, however many, with a beat after each."""
        for minibatch in minibatches:
            yield minibatch
            self.beat()

    def beat(self, is_over: bool = False) -> bool:
        """All ranks learn that the first one's validation goes on, or that it is over."""
        n_heard, n_over = self.ranks.add([bool(self.signals.heard), is_over])
        self.watchdog.feed()
        if n_heard and not n_over:
            raise BrokenOff
        return bool(n_over)

    def pause(self, must_save: bool = False) -> None:
        """A checkpoint where it is due; a signal that any rank heard ends the run."""
        is_due = self.ranks.is_first and self.pace.unsaved() > 60 * self.knobs.checkpoint_minutes
        n_heard, n_due = self.ranks.add([bool(self.signals.heard), must_save or is_due])
        if n_heard:
            self.stop()
        if n_due:
            self.save()

    def stop(self) -> NoReturn:
        """Write a checkpoint and raise `Interrupted`."""
        self.save()
        name = self.signals.describe()
        raise Interrupted(f"stopped by {name} at step {self.progress.step}; run it again.")

    def save(self) -> None:
        """Write the checkpoint, after all ranks agreed on its weights."""
        self.compare_ranks()
        if self.owner is not None:
            now = self.progress
            tensors = (
                name_part(self.task.model.state_dict(), "model")
                | name_part(self.average, "average")
                | name_part(self.best, "best")
                | name_part(pack_optimizer(self.optimizer), "optimizer")
                | {METRICS: now.metrics.to_tensor()}
            )
            state = now.describe() | {"plan": asdict(self.order.plan)}
            with self.pace.spending("saving"):
                write_checkpoint(self.folder, now.step, tensors, state, self.owner)
                self.write_metrics(self.owner)
        self.watchdog.feed()

    def write_metrics(self, owner: Owner) -> None:
        """Write `metrics.jsonl` as far as the checkpoint goes."""
        with resumable(self.folder / METRICS, owner):
            self.progress.metrics.write(self.folder, owner.check)

    def compare_ranks(self) -> None:
        """Raise `ModelError`, on all ranks, where the weights of any are not those of the first."""
        if self.ranks.world > 1:
            own = digest_tensors(self.task.model.state_dict())
            (n_other,) = self.ranks.add([self.ranks.tell(own) != own])
            if n_other:
                raise ModelError(
                    f"{n_other} of the {self.ranks.world} ranks hold other weights than the first "
                    f"at step {self.progress.step}: their nodes calculate differently. Use nodes "
                    f"of one kind; the checkpoints in {self.folder} are good."
                )

    def restore(self) -> None:
        """Continue where the newest good checkpoint stands."""
        found = read_newest(self.folder) if self.ranks.is_first else None
        path = self.ranks.tell(found and found.path)
        if path is None:
            logger.info("no checkpoint in %s: starting with step 0", self.folder)
            return
        tensors, state = (found or read_checkpoint(path))[1:]
        if state.pop("plan") != asdict(self.order.plan):
            raise IntegrityError(
                f"{path}: a run by another order of the cells. Delete its folder to start again."
            )
        self.progress = Progress(**state, metrics=Metrics.from_tensor(tensors[METRICS]))
        load_weights(self.task.model, pick(tensors, "model"), str(path))
        unpack_optimizer(self.optimizer, pick(tensors, "optimizer"))
        # Into the tensors at hand, which lie in memory as the model's own do.
        for part, weights in (("average", self.average), ("best", self.best)):
            for name, tensor in pick(tensors, part).items():
                weights[name].copy_(tensor)
        if self.owner is not None:
            self.write_metrics(self.owner)
        logger.info("resuming at epoch %d, step %d", self.progress.epoch, self.progress.step)


def key_run(
    stage: str, settings: dict[str, Any], device: torch.device, inputs: dict[str, str]
) -> str:
    """Name of a run's checkpoints: a digest of everything that its weights depend on."""
    key = {
        "settings": {name: value for name, value in settings.items() if name not in SPEED_KNOBS},
        "inputs": inputs,
        "code": stage_digest(stage),
        "device": device.type,
        "torch": torch.__version__,
    }
    return digest_json(key)[:16]


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
