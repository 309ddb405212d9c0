"""Checkpoints of real processes that the kernel kills in a system call, and on real disks."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from versions import check_recovery, list_names, read_undamaged, write

from tabatlas.errors import Interrupted

N_SAVED = 3
PAGE = resource.getpagesize()  # what a small file takes of a disk in memory
CALLS = (
    "openat",
    "write",
    "fsync",
    "fadvise64",
    "close",
    "?chmod,?fchmodat",
    "?rename,?renameat,renameat2",
    "?unlink,unlinkat",
)


class Child(NamedTuple):
    """A process that waits until it is told to begin."""

    pid: int
    gate: int
    report: int

    @classmethod
    def fork(cls, do: Callable[[Callable[[bytes], None]], None]) -> "Child":
        """A process that will do something and may report bytes."""
        (waiting, gate), (report, reporting) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.read(waiting, 1)
                do(lambda text: os.write(reporting, text) and None)
                code = 0
            finally:
                os._exit(code)
        os.close(waiting)
        os.close(reporting)
        return cls(pid, gate, report)

    def finish(self) -> tuple[int, bytes]:
        """Let it begin, and wait for its end: exit code or minus the signal, and its report."""
        os.write(self.gate, b"x")
        os.close(self.gate)
        with open(self.report, "rb") as report:
            said = report.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def kill_in_call(child: Child, calls: str, number: int) -> subprocess.Popen[bytes] | None:
    """Have a process killed as it enters a system call for the n-th time; None if not allowed."""
    inject = f"inject={calls}:signal=KILL:when={number}"
    tracer = subprocess.Popen(
        ["strace", "-qq", "-p", str(child.pid), "-o", "/dev/null", "-e", inject],
        stderr=subprocess.DEVNULL,
    )
    status = Path(f"/proc/{child.pid}/status")
    while "TracerPid:\t0" in status.read_text():
        if tracer.poll() is not None:
            return None
        time.sleep(0.001)
    return tracer


def save_some(folder: Path) -> Callable[[Callable[[bytes], None]], None]:
    """Save some versions, and say so after each."""

    def save(report: Callable[[bytes], None]) -> None:
        for version in range(N_SAVED):
            write(folder, version, 5 * version)
            report(b"x")

    return save


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace, which kills in system calls")
@pytest.mark.parametrize("calls", CALLS)
def test_a_process_killed_in_any_system_call_loses_nothing(tmp_path: Path, calls: str) -> None:
    for number in range(1, 200):
        folder = tmp_path / str(number)
        folder.mkdir()
        child = Child.fork(save_some(folder))
        tracer = kill_in_call(child, calls, number)
        code, said = child.finish()
        if tracer is None:
            pytest.skip("this system does not let strace attach to a process")
        tracer.wait()
        check_recovery(folder, len(said) - 1)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > N_SAVED, "the calls were met"


@pytest.fixture
def size(tmp_path: Path) -> int:
    """Bytes of the checkpoint, version 0, that stands in `tmp_path`."""
    return write(tmp_path, 0, 5).stat().st_size


def test_a_limit_of_the_size_of_files_is_told_and_costs_nothing(tmp_path: Path, size: int) -> None:
    for limit in range(0, size, size // 7):

        def save(report: Callable[[bytes], None], limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                write(tmp_path, 1, 10)
            except Interrupted as error:
                report(str(error).encode())

        code, said = Child.fork(save).finish()
        assert code == 0
        assert b"not written ([Errno 27] File too large)" in said
        assert list_names(tmp_path) == ["checkpoint-0000000005-000001.safetensors"]
        assert said.count(bytes(tmp_path / list_names(tmp_path)[0])) == 1
        assert read_undamaged(tmp_path) == 0
    check_recovery(tmp_path, 0)


@pytest.mark.parametrize(
    ("trouble", "says", "relief"),
    [
        ("rw", "No space left on device", f"size={9 * PAGE}"),
        ("ro", "Read-only file system", f"rw,size={9 * PAGE}"),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_told_and_costs_nothing(
    mount_disk: Callable[[int], Path], trouble: str, says: str, relief: str
) -> None:
    disk = mount_disk(2 * PAGE)  # room for two checkpoints
    for version in range(2):
        write(disk, version, 5 * version)
    remount(disk, trouble)
    for _ in range(2):
        with pytest.raises(Interrupted, match=says) as error:
            write(disk, 2, 10)
        assert "000005-000001.safetensors. Make room" in str(error.value)
        assert read_undamaged(disk) == 1
        assert len(list_names(disk)) == 2
    remount(disk, relief)
    check_recovery(disk, 1)


def remount(disk: Path, options: str) -> None:
    """Change a disk that is mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
