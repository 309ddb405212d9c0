"""A disk whose operations can be counted, refused, or be the last; and what a crash can leave.

`watching(disk)` sends each operation of Python on the files of one folder through the disk; every
`write` reaches the files at once. `list_survivors` has no part in that: it says from the record
what the folder may hold after a loss of power, where only what was synced is sure.
"""

import builtins
import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

Any_ = TypeVar("Any_")
Folder = dict[str, bytes]  # contents by name


class Crash(BaseException):
    """The process is killed: no `except` and no `finally` reaches the disk after it."""


class Operation(NamedTuple):
    """One operation on a file, or on the folder, whose name is empty."""

    kind: str
    name: str
    file: int = 0  # the file's number, whatever name it gets
    start: int = 0
    data: bytes = b""
    target: str = ""


MODIFYING = {"create", "empty", "write", "sync", "sync folder", "rename", "unlink", "mode"}

# Called with the number of an operation before it happens. It may raise, with an attribute `torn`
# after half of a write; it may return what the disk writes instead.
Fault = Callable[[int, Operation], bytes | None]


def no_fault(number: int, operation: Operation) -> None:
    """A disk that works."""


class Disk:
    """The operations on one folder's files, in order."""

    def __init__(self, folder: Path, fault: Fault = no_fault) -> None:
        self.folder, self.fault = folder, fault
        self.operations: list[Operation] = []
        self.n_operations = 0  # with those that failed
        self.before = read_folder(folder)
        self.files = {name: number for number, name in enumerate(sorted(self.before))}
        self.n_files = len(self.files)
        self.handles: dict[int, tuple[str, int]] = {}
        self.is_dead = False

    def find(self, path: Any) -> str | None:
        """The name of one of our files; None for what is none of ours."""
        if isinstance(path, int):
            return None
        path = Path(os.fsdecode(path))
        return "" if path == self.folder else path.name if path.parent == self.folder else None

    def act(self, operation: Operation, do: Callable[[bytes], Any]) -> Any:
        """Do one operation, unless the fault is against it."""
        if self.is_dead:
            raise Crash
        number, self.n_operations = self.n_operations, self.n_operations + 1
        try:
            changed = self.fault(number, operation)
        except BaseException as error:
            self.is_dead = isinstance(error, Crash)
            if operation.kind == "write" and getattr(error, "torn", False):
                do(operation.data[: len(operation.data) // 2])
            raise
        done = do(operation.data if changed is None else changed)
        self.operations.append(operation)
        return done

    def open(self, name: str, is_written: bool, do: Callable[[], Any_]) -> tuple[Any_, int]:
        """Open a file; with the number that it keeps."""
        kind = ("empty" if name in self.files else "create") if is_written else "open"
        number = self.n_files if kind == "create" else self.files.get(name, -1)
        opened = self.act(Operation(kind, name, number), lambda _: do())
        if kind == "create":
            self.files[name], self.n_files = number, number + 1
        return opened, number


class WatchedFile:
    """An open file of a disk."""

    def __init__(self, disk: Disk, file: io.FileIO, name: str, number: int) -> None:
        self.disk, self.file, self.name, self.number = disk, file, name, number
        disk.handles[file.fileno()] = (name, number)

    def write(self, data: Any) -> int:
        data = bytes(data)
        operation = Operation("write", self.name, self.number, self.file.tell(), data)
        self.disk.act(operation, self.file.write)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self.disk.act(Operation("read", self.name), lambda _: self.file.read(size))

    def readinto(self, buffer: Any) -> int:
        return self.disk.act(Operation("read", self.name), lambda _: self.file.readinto(buffer))

    def close(self) -> None:
        if not self.file.closed:
            self.disk.handles.pop(self.file.fileno(), None)
            self.file.close()  # also where closing fails: the handle is gone
            self.disk.act(Operation("close", self.name), lambda _: None)

    def __enter__(self) -> "WatchedFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextlib.contextmanager
def watching(disk: Disk) -> Iterator[Disk]:
    """Send what the block does in the disk's folder through the disk."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, replace in (
            (builtins, "open", replace_open),
            (io, "open", replace_open),
            (os, "open", replace_os_open),
            (os, "close", replace_close),
            (os, "fsync", replace_fsync),
            (os, "replace", replace_rename),
            (os, "unlink", replace_one("unlink")),
            (os, "chmod", replace_one("mode")),
            (os, "listdir", replace_one("list")),
        ):
            patch.setattr(module, name, replace(disk, getattr(module, name)))
        yield disk


def replace_open(disk: Disk, original: Callable) -> Callable:
    def open_file(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        name = disk.find(path)
        if name is None:
            return original(path, mode, *rest, **options)
        assert mode in ("rb", "wb"), "the only ones that checkpoints need"
        file, number = disk.open(name, mode == "wb", lambda: original(path, mode, 0))
        return WatchedFile(disk, file, name, number)

    return open_file


def replace_os_open(disk: Disk, original: Callable) -> Callable:
    def open_handle(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = disk.find(path)
        if name is None:
            return original(path, flags, *rest, **options)
        handle, number = disk.open(
            name, bool(flags & os.O_CREAT), lambda: original(path, flags, *rest, **options)
        )
        disk.handles[handle] = (name, number)
        return handle

    return open_handle


def replace_close(disk: Disk, original: Callable) -> Callable:
    def close(handle: int) -> None:
        name = disk.handles.pop(handle, (None,))[0]
        original(handle)
        if name is not None:
            disk.act(Operation("close", name), lambda _: None)

    return close


def replace_fsync(disk: Disk, original: Callable) -> Callable:
    def fsync(handle: int) -> None:
        if handle not in disk.handles:
            return original(handle)
        name, number = disk.handles[handle]
        kind = "sync" if name else "sync folder"
        return disk.act(Operation(kind, name, number), lambda _: None)

    return fsync


def replace_rename(disk: Disk, original: Callable) -> Callable:
    def rename(source: Any, target: Any) -> None:
        name, new = disk.find(source), disk.find(target)
        if name is None or new is None:
            return original(source, target)
        number = disk.files.get(name, -1)
        operation = Operation("rename", name, number, target=new)
        disk.act(operation, lambda _: original(source, target))
        disk.files[new] = disk.files.pop(name)
        return None

    return rename


def replace_one(kind: str) -> Callable[[Disk, Callable], Callable]:
    def replace(disk: Disk, original: Callable) -> Callable:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            name = disk.find(path)
            if name is None or (kind == "unlink" and name not in disk.files):
                return original(path, *rest, **options)
            operation = Operation(kind, name, disk.files.get(name, -1))
            done = disk.act(operation, lambda _: original(path, *rest, **options))
            if kind == "unlink":
                del disk.files[name]
            return done

        return call

    return replace


# what a crash can leave


def list_survivors(before: Folder, operations: Sequence[Operation], mark: str) -> list[Folder]:
    """All contents that the folder may have, each once, when the power fails now.

    Any part of the changes of names since the last sync of the folder has happened; of a file, any
    part of the writes since its last sync, each in whole or half. Contents are enumerated for
    names that begin with `mark`; of others it is their being there that matters.
    """
    names = {name: number for number, name in enumerate(sorted(before))}
    sure = {number: [Operation("write", name, data=before[name])] for name, number in names.items()}
    waiting: list[dict[str, int | None]] = []
    unsure: dict[int, list[Operation]] = {}
    for one in operations:
        if one.kind == "create":
            waiting.append({one.name: one.file})
        elif one.kind in ("empty", "write"):
            unsure.setdefault(one.file, []).append(one)
        elif one.kind == "sync":
            sure[one.file] = sure.get(one.file, []) + unsure.pop(one.file, [])
        elif one.kind == "rename":
            waiting.append({one.name: None, one.target: one.file})
        elif one.kind == "unlink":
            waiting.append({one.name: None})
        elif one.kind == "sync folder":
            names, waiting = change(names, waiting), []
    found = set()
    for happened in choose(waiting):
        left = change(names, happened)
        contents = [
            list_contents(sure.get(number, []), unsure.get(number, []) * name.startswith(mark))
            for name, number in left.items()
        ]
        found |= {frozenset(zip(left, one, strict=True)) for one in itertools.product(*contents)}
    return [dict(one) for one in found]


def change(names: dict[str, int], changes: Iterable[dict[str, int | None]]) -> dict[str, int]:
    """The names after some changes."""
    for one in changes:
        names = {name: number for name, number in (names | one).items() if number is not None}
    return names


def choose(changes: Sequence[Any_]) -> Iterator[list[Any_]]:
    """Every part of some changes, in their order."""
    for kept in itertools.product([False, True], repeat=len(changes)):
        yield list(itertools.compress(changes, kept))


def list_contents(sure: Sequence[Operation], unsure: Sequence[Operation]) -> set[bytes]:
    """What a file may hold: all that was synced, any part of what was not."""
    whole = {"lost": 0, "torn": 0.5, "kept": 1}
    return {
        replay([*sure, *(tear(one, part) for one, part in zip(unsure, parts, strict=True) if part)])
        for parts in itertools.product(whole.values(), repeat=len(unsure))
    }


def tear(operation: Operation, part: float) -> Operation:
    """A part of a write."""
    return operation._replace(data=operation.data[: int(part * len(operation.data))])


def replay(writes: Iterable[Operation]) -> bytes:
    """A file's content after some writes; what was never written is zero."""
    content = bytearray()
    for one in writes:
        if one.kind == "empty":
            content.clear()
        content.extend(bytes(max(0, one.start + len(one.data) - len(content))))
        content[one.start : one.start + len(one.data)] = one.data
    return bytes(content)


def read_folder(folder: Path) -> Folder:
    """The contents of a folder's files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_folder(folder: Path, files: Folder) -> None:
    """Give a folder exactly these files."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
