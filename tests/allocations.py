"""How large the largest thing is that a piece of code allocates."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass
class Allocations:
    """What was seen so far."""

    largest: int = 0  # elements of a tensor that did not exist before
    source: str = ""  # the operation that made it
    numpy_bytes: int = 0  # at most at a time, of arrays and of Python's own objects


@contextmanager
def watch_allocations() -> Iterator[Allocations]:
    """Watch this thread's operations of torch, their gradients', and numpy everywhere.

    Memory of compiled loops (numba) is not seen: those of `tabnet` take single rows.
    """
    seen = Allocations()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        with Watch(seen):
            yield seen
        seen.numpy_bytes = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class Watch(TorchDispatchMode):
    """Looks at what every operation returns."""

    def __init__(self, seen: Allocations) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        """Run the operation; count what shares no memory with its arguments."""
        kwargs = kwargs or {}
        known = {one.untyped_storage().data_ptr() for one in list_tensors((args, kwargs))}
        made = func(*args, **kwargs)
        for one in list_tensors(made):
            storage = one.untyped_storage()
            n_elements = storage.nbytes() // one.itemsize
            if storage.data_ptr() not in known and n_elements > self.seen.largest:
                self.seen.largest, self.seen.source = n_elements, str(func)
        return made


def list_tensors(tree: Any) -> list[Tensor]:
    """All tensors among arguments or results that have memory of their own kind."""
    return [one for one in tree_iter(tree) if isinstance(one, Tensor) and not one.is_sparse]
