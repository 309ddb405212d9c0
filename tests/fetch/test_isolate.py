import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tabatlas.errors import CountsError, InputError
from tabatlas.fetch.isolate import call_isolated, iterate_isolated


def raise_counts_error() -> None:
    raise CountsError("no counts")


def raise_bug() -> None:
    raise ZeroDivisionError


def fill_memory() -> None:
    np.empty(1 << 60, dtype=np.int8)


def fill_disk(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_value_comes_from_another_process() -> None:
    assert call_isolated("a.h5ad", 60, os.getpid) != os.getpid()


def test_errors_of_the_user_come_through(tmp_path: Path) -> None:
    with pytest.raises(CountsError, match=r"^no counts$"):
        call_isolated("a.h5ad", 60, raise_counts_error)
    with pytest.raises(MemoryError, match="Unable to allocate"):
        call_isolated("a.h5ad", 60, fill_memory)
    with pytest.raises(OSError, match=r"No space left on device: .*x'") as caught:
        call_isolated("a.h5ad", 60, fill_disk, tmp_path / "x")
    assert caught.value.errno == errno.ENOSPC


def test_crash_of_a_library_is_a_message_with_the_file() -> None:
    with pytest.raises(InputError, match=r"^a\.h5ad: .* died \(SIGABRT\): the file is damaged"):
        call_isolated("a.h5ad", 60, os.abort)


def test_endless_loop_of_a_library_is_a_message_with_the_file() -> None:
    with pytest.raises(InputError, match=r"^a\.h5ad: not read within 0 s: the file is damaged"):
        call_isolated("a.h5ad", 0.1, time.sleep, 60)
    assert not multiprocessing.active_children()


def test_a_crash_is_a_message_with_the_file() -> None:
    with pytest.raises(InputError, match=r"^a\.h5ad: .* died \(SIGSEGV\).* memory or disk ran out"):
        call_isolated("a.h5ad", 60, signal.raise_signal, signal.SIGSEGV)


def test_a_kill_is_one_for_memory() -> None:
    with pytest.raises(MemoryError, match=r"^a\.h5ad: the process that read it was killed"):
        call_isolated("a.h5ad", 60, signal.raise_signal, signal.SIGKILL)


def test_bug_keeps_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="the traceback stands above"):
        call_isolated("a.h5ad", 60, raise_bug)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_end_of_the_child_without_a_word_is_our_mistake() -> None:
    with pytest.raises(RuntimeError, match="the traceback stands above"):
        call_isolated("a.h5ad", 60, sys.exit, 0)


# items


def count_to(n: int, error: Exception | None = None) -> Iterator[int]:
    yield from range(n)
    if error is not None:
        raise error


def count_and_die(n: int) -> Iterator[int]:
    yield from range(n)
    os.abort()


def test_items_arrive_in_order_from_another_process() -> None:
    assert list(iterate_isolated("a.h5ad", 60, count_to, 3)) == [0, 1, 2]


def test_items_before_an_error_arrive() -> None:
    items = iterate_isolated("a.h5ad", 60, count_to, 2, CountsError("it holds NaN"))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(CountsError, match="it holds NaN"):
        next(items)


def test_death_between_items_is_a_message() -> None:
    items = iterate_isolated("a.h5ad", 60, count_and_die, 1)
    assert next(items) == 0
    with pytest.raises(InputError, match=r"a.h5ad: the process that read it died .SIGABRT"):
        next(items)


def test_process_ends_with_who_asked() -> None:
    items = iterate_isolated("a.h5ad", 60, count_to, 10**9)
    next(items)
    (child,) = multiprocessing.active_children()
    items.close()
    assert not child.is_alive()
