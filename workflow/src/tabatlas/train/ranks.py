"""Ranks: processes that train one model together, and how their parts become one."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tabatlas.errors import ConfigError, Interrupted, UsageError
from tabatlas.stream.order import Share


@dataclass(frozen=True)
class Ranks:
    """This process's number among those that `torchrun` started; alone it is the first of one."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank validates and writes."""
        return self.rank == 0

    def share(self, micro_batches: int) -> Share:
        """The micro-batches of this rank. Raises `ConfigError` where they would be unequal."""
        if micro_batches % self.world:
            raise ConfigError(
                f"micro_batches: {micro_batches}: must be a multiple of the number of ranks, which "
                f"is {self.world}. Set it to {self.world}, or start as many ranks as divide it."
            )
        return Share(self.rank, self.world, micro_batches)

    def add(self, numbers: Sequence[int]) -> list[int]:
        """Sums over all ranks of whole numbers (k,), which are exact in any order."""
        if self.world == 1:
            return list(numbers)
        total_k = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        with self.missing_others():
            dist.all_reduce(total_k)
        return total_k.tolist()

    def tell(self, value: Any) -> Any:
        """The first rank's value, on all of them."""
        if self.world == 1:
            return value
        told = [value]
        with self.missing_others():
            dist.broadcast_object_list(told, src=0, device=self.device)
        return told[0]

    def combine(self, links: Sequence[Sequence[Tensor]], ordered: bool) -> Sequence[Tensor]:
        """The sum of all ranks' links, each a list of tensors of the same shapes; on all ranks.

        `ordered` adds link after link, rank after rank: the same bytes for any number of ranks.
        Else every rank must bring one link, and how sums are ordered is the backend's affair.
        """
        if self.world == 1:
            return links[0]
        flats = [torch.cat([tensor.reshape(-1) for tensor in link]) for link in links]
        with self.missing_others():
            total = self.chain(flats) if ordered else flats[0]
            if not ordered:
                dist.all_reduce(total)
        parts = total.split([tensor.numel() for tensor in links[0]])
        # Into the tensors at hand: their order in memory decides about the bits of a norm.
        for tensor, part in zip(links[0], parts, strict=True):
            tensor.copy_(part.view(tensor.shape))
        return links[0]

    def chain(self, links: Sequence[Tensor]) -> Tensor:
        """Add this rank's links to what the ranks before it have; all get what the last one has."""
        last = self.world - 1
        if self.is_first:
            total, *links = links
        else:
            total = torch.empty_like(links[0])
            dist.recv(total, self.rank - 1)
        for link in links:
            total += link
        if self.rank < last:
            dist.send(total, self.rank + 1)
        dist.broadcast(total, src=last)
        return total

    @contextlib.contextmanager
    def missing_others(self) -> Iterator[None]:
        """A context in which a rank that does not answer ends this one too, resumably."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise  # our own trouble
        except RuntimeError as error:
            # As gloo words it: "[file:line] Reason. Advice".
            reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
            raise Interrupted(
                f"another of the {self.world} ranks has ended or does not answer "
                f"({reason}). Its own message says why; run it again to resume."
            ) from None


@contextlib.contextmanager
def join_ranks(device: torch.device, most_minutes: float) -> Iterator[Ranks]:
    """Meet the other ranks that `torchrun` started; a process that it did not start is alone."""
    ranks = Ranks(device)
    try:
        if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            ranks = Ranks(device, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
            backend = "nccl" if device.type == "cuda" else "gloo"
            with ranks.missing_others():
                dist.init_process_group(backend, timeout=timedelta(minutes=most_minutes))
    except ValueError as error:
        raise UsageError(
            f"RANK and WORLD_SIZE are set, but not all is as torchrun sets it ({error}). Start "
            "with torchrun, or unset both."
        ) from None
    yield ranks
    if ranks.world > 1:
        # Not after an error: to take leave of ranks that do not answer would wait for them.
        dist.destroy_process_group()
