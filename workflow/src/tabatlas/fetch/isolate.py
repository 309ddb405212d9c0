"""Call a function in a process of its own: a crash or a hang of a library becomes a message."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tabatlas.errors import InputError, TabatlasError

PATIENCE, PATIENCE_PER_BYTE = 600, 2e-6  # seconds; ten times what a laptop needs
ITEM, END, ERROR = "item", "end", "error"


def allow_seconds(path: Path) -> float:
    """Within what time a healthy file is read."""
    return PATIENCE + path.stat().st_size * PATIENCE_PER_BYTE


def call_isolated(place: str, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns or raises, from a new process.

    Raises `InputError` about `place` where the process dies, or does not end within `seconds`.
    """
    (value,) = iterate_isolated(place, seconds, yield_outcome, function, *arguments)
    return value


def yield_outcome(function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """What a function returns, as the only item of a generator."""
    yield function(*arguments)


def iterate_isolated(
    place: str, seconds: float, function: Callable[..., Iterable[Any]], *arguments: Any
) -> Iterator[Any]:
    """What the generator `function(*arguments)` yields, from a new process that works ahead by one.

    Raises what it raises, and `InputError` about `place` where the process dies or needs more than
    `seconds` for an item. The process ends with this generator, however that ends.
    """
    # Not forked: a copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_items, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()  # so that the stream ends where the child does
    try:
        kind, value = receive(place, seconds, receiver)
        while kind == ITEM:
            yield value
            kind, value = receive(place, seconds, receiver)
    except EOFError:
        child.join()
        raise explain_death(place, child.exitcode or 0) from None
    finally:
        child.kill()  # it has nothing more to say
        child.join()
        receiver.close()
    if kind == ERROR:
        raise value


def receive(place: str, seconds: float, receiver: Connection) -> tuple[str, Any]:
    """The next message of a child."""
    if not receiver.poll(seconds):
        raise InputError(
            f"{place}: not read within {seconds:.0f} s: the file is damaged, or the disk is very "
            "slow. Fetch it again, or copy it to a faster disk."
        )
    try:
        return receiver.recv()
    except OSError as error:  # it died within a message
        raise EOFError from error


def send_items(
    sender: Connection, function: Callable[..., Iterable[Any]], arguments: tuple[Any, ...]
) -> None:
    """Send each item of a generator, and how it ended: well, or with an error for the user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends this process
    try:
        for item in function(*arguments):
            sender.send((ITEM, item))
        end = END, None
    except BrokenPipeError:  # the parent is gone
        return
    except (TabatlasError, OSError, MemoryError) as error:
        end = ERROR, error
    with contextlib.suppress(BrokenPipeError):
        sender.send(end)


def explain_death(place: str, exitcode: int) -> Exception:
    """The error that a child's exit code means: negative is a signal, else its own traceback."""
    if exitcode >= 0:
        return RuntimeError(f"{place}: reading it failed; the traceback stands above")
    if exitcode == -signal.SIGKILL:  # so the kernel ends whoever has the most
        return MemoryError(f"{place}: the process that read it was killed")
    return InputError(
        f"{place}: the process that read it died ({signal.Signals(-exitcode).name}): the file is "
        "damaged, or memory or disk ran out. Fetch it again, or give the job more of them."
    )
