"""Read ahead in threads: what is asked for next is there when it is needed, in the same order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from tabatlas.errors import ConfigError

Wanted, Found = TypeVar("Wanted"), TypeVar("Found")


@dataclass(frozen=True)
class Reading:
    """How a source reads: it changes the speed, and nothing that is read.

    `threads` read side by side; all that waits to be taken, with what was taken last, is at most
    `bytes`, beside pages of mapped files, which the system takes back when it needs them. `pinned`
    minibatches lie where a GPU can fetch them while the CPU goes on.
    """

    threads: int = 1
    bytes: int = 1 << 30
    pinned: bool = False

    def count_ahead(self, item: str, item_bytes: float, n_held: int = 1) -> int:
        """How many items of that size may be read ahead of the `n_held` that are in use.

        Raises `ConfigError` where not even one fits.
        """
        n_items = int(self.bytes // max(1, item_bytes)) - n_held
        if n_items < 1:
            raise ConfigError(
                f"loader_bytes: {self.bytes}: {n_held + 1} {item} of {item_bytes:.0f} bytes must "
                "fit. Raise it, or read fewer cells at once."
            )
        return min(n_items, 2 * self.threads)


def read_ahead(
    read: Callable[[Wanted], Found], wanted: Iterable[Wanted], threads: int, n_ahead: int
) -> Iterator[Found]:
    """`read` of each of `wanted`, in their order, at most `n_ahead` of them before they are taken.

    Threads, no processes: the loops and TileDB release the GIL, and a fork would copy what CUDA
    and TileDB hold. An error is raised where its result is due.
    """
    waiting: deque[Future[Found]] = deque()
    pool, coming = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead"), iter(wanted)
    try:
        waiting.extend(pool.submit(read, one) for one in islice(coming, n_ahead))
        while waiting:
            found = waiting.popleft().result()
            # Before the yield: while one is used, the next are read.
            waiting.extend(pool.submit(read, one) for one in islice(coming, 1))
            yield found
    finally:
        pool.shutdown(cancel_futures=True)
