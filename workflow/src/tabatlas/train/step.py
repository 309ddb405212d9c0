"""One step: a global minibatch becomes an update, whatever ranks and micro-batches share it.

A step is (seed, epoch, number): what is drawn follows from these and the micro-batch alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.stream.minibatch import Minibatch
from tabatlas.train.device import seed_generator
from tabatlas.train.ranks import Ranks

Attend = Callable[[Iterable[Minibatch]], Iterator[Minibatch]]

RUNNING = ("running_mean", "running_var")  # as torch's batch normalizations name them


class Task(Protocol):
    """What is trained: a model, its loss, and its validation."""

    model: nn.Module

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> Any:
        """What the loss takes of a micro-batch, with everything that is random in it."""

    def sizes(self, inputs: Any) -> Sequence[int]:
        """How much there is of what the loss is a mean of: cells, hidden values."""

    def loss(self, inputs: Any, totals: Sequence[int]) -> Tensor:
        """A micro-batch's part of the loss; `totals` are all micro-batches' sizes together."""

    def validate(self, attend: Attend = iter) -> dict[str, float]:
        """Scores on the validation cells; `validation_loss` decides about early stopping.

        Their minibatches are taken through `attend`, which may end it by an exception.
        """


class Knobs(Protocol):
    """The settings that the engine reads; see `train.settings` for their meaning."""

    seed: int
    epochs: int
    patience: int
    batch_size: int
    micro_batches: int
    reduction: str
    precision: str
    learning_rate: float
    weight_decay: float
    warmup: float
    clip_norm: float
    ema: float
    checkpoint_minutes: float
    hang_minutes: float


class Outcome(NamedTuple):
    """What a step found."""

    loss: float
    gradient_norm: float
    n_cells: int
    cells: str  # digest of the joinids of the global minibatch

    @property
    def is_finite(self) -> bool:
        """Whether the weights may follow this gradient."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient_norm))


class Stepper:
    """Turns this rank's micro-batches into the gradient of the whole minibatch, and follows it."""

    def __init__(
        self, task: Task, optimizer: torch.optim.Optimizer, ranks: Ranks, knobs: Knobs
    ) -> None:
        self.task, self.optimizer, self.ranks, self.knobs = task, optimizer, ranks, knobs
        self.share = ranks.share(knobs.micro_batches)
        self.first = self.share.rank * self.share.n_own
        self.parameters = list(task.model.parameters())
        buffers = dict(task.model.named_buffers())
        self.buffers = list(buffers.values())
        self.statistics = [buffers[name] for name in buffers if name.endswith(RUNNING)]
        on_cpu = ranks.device.type == "cpu"
        self.is_ordered = knobs.reduction == "ordered" or (knobs.reduction == "auto" and on_cpu)

    def take(self, minibatches: Sequence[Minibatch], epoch: int, number: int) -> Outcome:
        """One step; it leaves weights and optimizer as they were where the loss is not finite."""
        assert len(minibatches) == self.share.n_own, "the source ended before the epoch"
        device, seed = self.ranks.device, self.knobs.seed
        inputs = [
            self.task.draw(one.to(device), seed_generator(device, seed, epoch, number, place))
            for place, one in enumerate(minibatches, self.first)
        ]
        n_cells, *totals = self.ranks.add(self.count(minibatches, inputs))
        loss = self.differentiate(inputs, totals[: -self.knobs.micro_batches])
        norm = nn.utils.clip_grad_norm_(self.parameters, self.knobs.clip_norm)
        cells = hashlib.sha256(np.array(totals[-self.knobs.micro_batches :]).tobytes())
        outcome = Outcome(loss.item(), norm.item(), n_cells, cells.hexdigest()[:16])
        if outcome.is_finite:
            self.optimizer.step()
        return outcome

    def count(self, minibatches: Sequence[Minibatch], inputs: Sequence[Any]) -> list[int]:
        """Cells, sizes, and in each micro-batch's place a digest of its cells."""
        sizes_mk = [self.task.sizes(one) for one in inputs]
        digest_m = [0] * self.knobs.micro_batches
        for place, minibatch in enumerate(minibatches, self.first):
            digest_m[place] = digest_cells(minibatch.joinid)
        return [
            sum(map(len, minibatches)),
            *(sum(sizes) for sizes in zip(*sizes_mk, strict=True)),
            *digest_m,
        ]

    def differentiate(self, inputs: Sequence[Any], totals: Sequence[int]) -> Tensor:
        """Put the gradient of the whole minibatch into the parameters; returns the loss.

        Every micro-batch sees the running statistics of the step's start, and they move once, to
        the mean of where its micro-batches would have moved them.
        """
        start = [buffer.clone() for buffer in self.buffers]
        links: list[list[Tensor]] = []
        for one in inputs:
            if start:
                torch._foreach_copy_(self.buffers, start)
            link = self.differentiate_part(one, totals)
            if links and (self.ranks.is_first or not self.is_ordered):
                torch._foreach_add_(links[0], link)
            else:
                links.append(link)
        total = self.ranks.combine(links, self.is_ordered)
        n_parameters = len(self.parameters)
        for parameter, gradient in zip(self.parameters, total[:n_parameters], strict=True):
            parameter.grad = gradient
        for buffer, moved in zip(self.statistics, total[n_parameters:-1], strict=True):
            buffer.copy_(moved / self.knobs.micro_batches)
        return total[-1]

    def differentiate_part(self, inputs: Any, totals: Sequence[int]) -> list[Tensor]:
        """Gradients, running statistics and loss of one micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        in_half = self.knobs.precision == "bfloat16"
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=in_half):
            loss = self.task.loss(inputs, totals)
        loss.backward()
        gradients = [
            # Not none: what a parameter does must not depend on who has which micro-batch.
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.parameters
        ]
        return [*gradients, *(buffer.clone() for buffer in self.statistics), loss.detach()]


def digest_cells(joinid_n: Tensor) -> int:
    """A whole number of 56 bits for an order of cells."""
    return int.from_bytes(hashlib.sha256(joinid_n.cpu().numpy().tobytes()).digest()[:7], "big")
