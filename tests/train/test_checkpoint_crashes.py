"""Checkpoints when a process is killed, the power fails or the disk refuses: at each operation."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crashes import (
    MODIFYING,
    Crash,
    Disk,
    Fault,
    Folder,
    Operation,
    list_survivors,
    no_fault,
    read_folder,
    watching,
    write_folder,
)
from versions import Sleeper, Token, check_recovery, list_names, read, read_undamaged, write

from tabatlas import provenance
from tabatlas.errors import IntegrityError, Interrupted
from tabatlas.train import checkpoint, tensors
from tabatlas.train.owner import sweep
from tabatlas.train.tensors import is_whole, write_tensors

# Steps that a run saves, and by which owner. The last one of an epoch is saved twice.
SAVES = ((5, 1), (10, 1), (10, 1), (15, 2), (20, 2))


def write_run(folder: Path, fault: Fault = no_fault) -> tuple[Disk, list[int]]:
    """Save version after version; with the number of operations at the end of each."""
    ends = []
    with watching(Disk(folder, fault)) as disk, contextlib.suppress(Crash):
        for version, (step, owner) in enumerate(SAVES):
            write(folder, version, step, owner)
            ends.append(len(disk.operations))
    return disk, ends


# the process is killed


def kill_at(at: int, torn: bool = False) -> Fault:
    """Kill the process before an operation; `torn`: in the middle of it, where it is a write."""

    def fault(number: int, operation: Operation) -> None:
        if number == at:
            crash = Crash()
            crash.torn = torn
            raise crash

    return fault


def check_kills(folder: Path) -> None:
    """A process that is killed at any operation, in any write too, loses nothing."""
    n_operations = len(write_run(folder)[0].operations)
    for torn in (False, True):
        for at in range(n_operations):
            write_folder(folder, {})
            disk, ends = write_run(folder, kill_at(at, torn))
            assert disk.is_dead
            check_recovery(folder, len(ends) - 1)


def test_a_kill_at_any_operation_loses_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path)


def test_a_kill_after_a_kill_loses_nothing(tmp_path: Path) -> None:
    n_operations = len(write_run(tmp_path)[0].operations)
    for at in range(0, n_operations, 7):
        for again in range(0, 28, 3):
            write_folder(tmp_path, {})
            saved = len(write_run(tmp_path, kill_at(at))[1]) - 1
            with watching(Disk(tmp_path, kill_at(again))), contextlib.suppress(Crash):
                write(tmp_path, 50, 50, 3)
                saved = 50
            check_recovery(tmp_path, saved)


# the power fails


def check_power(folder: Path) -> None:
    """Where what was not synced is lost in any combination, nothing that was saved is."""
    disk, ends = write_run(folder)
    seen = set()
    for n_operations in range(len(disk.operations) + 1):
        saved = sum(end <= n_operations for end in ends) - 1
        for files in list_survivors({}, disk.operations[:n_operations], "checkpoint-"):
            key = (saved, *sorted(files.items()))
            if key not in seen:
                seen.add(key)
                write_folder(folder, files)
                check_recovery(folder, saved)
    assert len(seen) > 4 * len(SAVES)


def test_a_loss_of_power_after_any_operation_loses_nothing(tmp_path: Path) -> None:
    check_power(tmp_path)


# the disk refuses

# What a full disk refuses; one that is read-only refuses all changes, and a broken one anything.
GROWING = {"create", "empty", "write", "sync", "sync folder", "close", "rename"}
REFUSALS = {
    "no space": (errno.ENOSPC, GROWING),
    "quota": (errno.EDQUOT, GROWING),
    "read-only": (errno.EROFS, MODIFYING),
    "broken": (errno.EIO, {*MODIFYING, "open", "close", "read", "list"}),
}


@pytest.fixture
def before(tmp_path: Path) -> Folder:
    """What the folder `tmp_path` holds: versions 0 and 1 of the first owner."""
    for version, step in enumerate([5, 10]):
        write(tmp_path, version, step)
    return read_folder(tmp_path)


def refuse(code: int, at: int, later: set[str]) -> Fault:
    """Refuse the operation with number `at`, and those of some kinds from then on."""

    def fault(number: int, operation: Operation) -> None:
        if number == at or (number > at and operation.kind in later):
            error = OSError(code, os.strerror(code))
            error.torn = True
            raise error

    return fault


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_disk_that_refuses_at_any_operation_leaves_the_last_checkpoint_and_a_message(
    tmp_path: Path, before: Folder, refusal: str, is_lasting: bool
) -> None:
    code, kinds = REFUSALS[refusal]
    with watching(Disk(tmp_path)) as sound:
        write(tmp_path, 2, 15, 2)
    n_refused = 0
    for at, operation in enumerate(sound.operations):
        # Whether the checkpoint before is good is a question; what cannot be read is not.
        is_look = operation.name in before and operation.kind != "unlink"
        if operation.kind not in kinds or is_look:
            continue
        write_folder(tmp_path, before)
        later = kinds & MODIFYING if is_lasting else set()
        fault = refuse(code, at, later)
        with watching(Disk(tmp_path, fault)), pytest.raises(Interrupted) as refused:
            write(tmp_path, 2, 15, 2)
        n_refused += 1
        check_message(str(refused.value), tmp_path, code)
        found = read_undamaged(tmp_path)
        renamed = [one.kind for one in sound.operations[:at]].count("rename")
        assert found == 1 + renamed
        if "unlink" not in later:
            assert all(name[0] != "." for name in list_names(tmp_path)), "half a file stays"
        sweep(tmp_path, 3, 0)
        write(tmp_path, 3, 20, 3)
        assert read_undamaged(tmp_path) == 3
        assert len(list_names(tmp_path)) == 2
    assert n_refused >= len(GROWING)


def check_message(message: str, folder: Path, code: int) -> None:
    """It says which file, why, what is still good, and what to do."""
    assert message.startswith(f"{folder}/checkpoint-0000000015-000002.safetensors: not written")
    assert os.strerror(code) in message
    assert "Make room" in message
    assert message.endswith("run it again.")
    good = re.search(r"Last good checkpoint: (\S+\.safetensors)\. ", message)
    assert good is not None
    assert is_whole(Path(good[1]).read_bytes())


def test_a_refused_first_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    fault = refuse(errno.ENOSPC, 5, GROWING)
    with watching(Disk(tmp_path, fault)), pytest.raises(Interrupted, match="checkpoint: none yet"):
        write(tmp_path, 0, 5)
    assert read(tmp_path) == -1
    assert list_names(tmp_path) == []


def check_rot(folder: Path, before: Folder) -> None:
    """What the disk does not keep as it was written takes no name, and displaces nothing."""
    with watching(Disk(folder)) as sound:
        write(folder, 2, 15)
    for at, operation in enumerate(sound.operations):
        if operation.kind == "write":
            write_folder(folder, before)
            with watching(Disk(folder, rot(at))), contextlib.suppress(Interrupted):
                write(folder, 2, 15)
            assert read_folder(folder) == before


def rot(at: int) -> Fault:
    """Flip a bit of what is written."""

    def fault(number: int, operation: Operation) -> bytes | None:
        if number == at:
            return bytes([operation.data[0] ^ 1]) + operation.data[1:]
        return None

    return fault


def test_what_the_disk_garbles_takes_no_name(tmp_path: Path, before: Folder) -> None:
    check_rot(tmp_path, before)


def test_the_message_about_a_garbling_disk_says_so(tmp_path: Path, before: Folder) -> None:
    with (
        watching(Disk(tmp_path, rot(6))),
        pytest.raises(Interrupted, match="gave back other bytes"),
    ):
        write(tmp_path, 2, 15)


# another owner


def check_fencing(folder: Path, before: Folder) -> None:
    """An owner that was taken over before its file is whole gives it no name."""
    with watching(Disk(folder)) as sound:
        write(folder, 2, 15)
    kinds = [one.kind for one in sound.operations]
    for at in range(kinds.index("mode")):
        write_folder(folder, before)
        owner = Token(1)
        with watching(Disk(folder, lose(owner, at))), contextlib.suppress(Interrupted):
            write(folder, 2, 15, owner)
        assert read_folder(folder) == before


def lose(owner: Token, at: int) -> Fault:
    """The owner is taken over just before an operation."""

    def fault(number: int, operation: Operation) -> None:
        owner.is_lost |= number == at

    return fault


def test_an_owner_that_was_taken_over_writes_nothing(tmp_path: Path, before: Folder) -> None:
    check_fencing(tmp_path, before)


def test_the_message_of_the_owner_counts_where_its_files_vanished(
    tmp_path: Path, before: Folder
) -> None:
    owner = Token(1)

    def fault(number: int, operation: Operation) -> None:
        if operation.kind == "sync":
            owner.is_lost = True
            os.unlink(tmp_path / operation.name)

    with watching(Disk(tmp_path, fault)), pytest.raises(Interrupted, match="has another owner"):
        write(tmp_path, 2, 15, owner)
    assert read_folder(tmp_path) == before


@pytest.mark.parametrize("asleep", range(0, 27, 2))
def test_an_owner_that_wakes_in_the_middle_of_anothers_write_does_no_harm(
    tmp_path: Path, before: Folder, asleep: int
) -> None:
    for awake in range(0, 30, 2):
        write_folder(tmp_path, before)
        sleeper = Sleeper(tmp_path, asleep, awake)
        with watching(Disk(tmp_path, sleeper.fault)):
            sleeper.thread.start()
            sleeper.sleeps.wait()
            sleeper.owner.is_lost = True
            found = read_undamaged(tmp_path)
            write(tmp_path, 3, {1: 12, 2: 20}[found], 2)
            sleeper.wake()
        assert [type(error) for error in sleeper.errors] in ([], [Interrupted])
        assert any(f"{step:010d}-000002" in " ".join(list_names(tmp_path)) for step in (12, 20))
        assert read_undamaged(tmp_path) in (2, 3)
        for version, step in ((4, 30), (5, 40)):
            write(tmp_path, version, step, 2)
            assert read_undamaged(tmp_path) == version
        assert [name[-18:] for name in list_names(tmp_path)] == ["000002.safetensors"] * 2


# what fails where a safeguard is missing


class Without:
    """The module `os`, in which files are not synced; folders are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.fsync(handle)


@contextlib.contextmanager
def write_in_place(path: Path) -> Iterator[Path]:
    """An `atomic_path` that is none."""
    yield path


def delete_first(*arguments: Any) -> None:
    """Make room first, and write then."""
    for path in Path(arguments[2]).parent.glob("checkpoint-*"):
        path.unlink()
    write_tensors(*arguments)


def remove_check(*arguments: Any) -> None:
    """Write without a last look at who owns the run."""
    write_tensors(*arguments[:3])


Change = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: Mapping[str, tuple[Callable[..., None], Change]] = {
    "sync": (
        check_power,
        lambda patch: [patch.setattr(one, "os", Without()) for one in (tensors, provenance)],
    ),
    "sync of the folder": (
        check_power,
        lambda patch: patch.setattr(provenance, "sync_folder", lambda folder: None),
    ),
    "rename": (check_kills, lambda patch: patch.setattr(tensors, "atomic_path", write_in_place)),
    "keeping": (
        check_kills,
        lambda patch: patch.setattr(checkpoint, "write_tensors", delete_first),
    ),
    "reading back": (
        check_rot,
        lambda patch: patch.setattr(tensors, "digest_file", lambda path: mock.ANY),
    ),
    "fencing": (
        check_fencing,
        lambda patch: patch.setattr(checkpoint, "write_tensors", remove_check),
    ),
}


@pytest.mark.parametrize("missing", MUTATIONS)
def test_a_missing_safeguard_is_noticed(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    check, change = MUTATIONS[missing]
    rest = [request.getfixturevalue("before")] if check in (check_rot, check_fencing) else []
    change(monkeypatch)
    with pytest.raises((AssertionError, IntegrityError)):
        check(tmp_path, *rest)
