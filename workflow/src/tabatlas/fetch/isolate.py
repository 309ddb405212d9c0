"""Call a function in a process of its own: a crash or a hang of a library becomes a message."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tabatlas.errors import InputError, TabatlasError


def call_isolated(place: str, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns or raises, from a new process.

    Raises `InputError` about `place` where the process dies, or does not end within `seconds`.
    """
    # Not forked: a copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_outcome, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()  # so that the stream ends where the child does
    try:
        if not receiver.poll(seconds):
            child.kill()
            child.join()
            raise InputError(
                f"{place}: not read within {seconds:.0f} s: the file is damaged, or the disk is "
                "very slow. Fetch it again, or copy it to a faster disk."
            )
        value, error = receiver.recv()
    except EOFError:
        child.join()
        raise explain_death(place, child.exitcode or 0) from None
    child.join()
    if error is not None:
        raise error
    return value


def send_outcome(
    sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Send the value of a call, or the error that the user is to hear of."""
    try:
        outcome = function(*arguments), None
    except (TabatlasError, OSError, MemoryError) as error:
        outcome = None, error
    sender.send(outcome)


def explain_death(place: str, exitcode: int) -> Exception:
    """The error that a child's exit code means: negative is a signal, else its own traceback."""
    if exitcode >= 0:
        return RuntimeError(f"{place}: reading it failed; the traceback stands above")
    return InputError(
        f"{place}: the process that read it died ({signal.Signals(-exitcode).name}): the file is "
        "damaged, or memory or disk ran out. Fetch it again, or give the job more of them."
    )
