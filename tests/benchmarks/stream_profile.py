"""Where a loader's time goes: lines of the package on which its threads are found at work."""

import collections
import linecache
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import tabatlas

PACKAGE = str(next(iter(tabatlas.__path__)))
EVERY = 0.002  # seconds
LEAST = 0.03  # share of a line that is named
# A thread whose innermost frame is in these waits.
WAITING = ("threading.py", "thread.py", "_base.py", "queue.py")


@contextmanager
def sample_lines() -> Iterator[dict[str, float]]:
    """A dictionary that holds each line's share of all working threads' samples at the end.

    A line's time is that of what it calls outside the package, compiled loops and TileDB included.
    """
    found: collections.Counter[str] = collections.Counter()
    shares: dict[str, float] = {}
    ended = threading.Event()
    sampler = threading.Thread(target=watch_threads, args=(found, ended))
    sampler.start()
    try:
        yield shares
    finally:
        ended.set()
        sampler.join()
    total = max(1, found.total())
    named = {line: n / total for line, n in found.most_common() if n >= LEAST * total}
    shares |= named | {"other lines": 1 - sum(named.values())}


def watch_threads(found: collections.Counter[str], ended: threading.Event) -> None:
    """Count the line of each working thread, every few milliseconds."""
    own = threading.get_ident()
    while not ended.is_set():
        time.sleep(EVERY)
        for thread, frame in sys._current_frames().items():
            if thread != own and not frame.f_code.co_filename.endswith(WAITING):
                found[name_line(frame)] += 1


def name_line(frame: FrameType | None) -> str:
    """The innermost line of the package that a thread is on: function and text."""
    while frame and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "outside the package"
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_qualname}: {line}"
