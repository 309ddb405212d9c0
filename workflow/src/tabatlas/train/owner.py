"""One owner per run: the process with the highest token may write in the run's folder.

`owner-<token>.json` says who it is, and a heartbeat touches it; one without bytes is released.
Tokens only grow: whoever takes a run over fences off the owner before, even one that only sleeps.
Nothing here needs file locks, or clocks that agree, so it holds on a shared file system.
"""

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tabatlas.errors import Interrupted, show
from tabatlas.provenance import sync_folder

logger = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two heartbeats
LEASE = 60.0  # seconds without one after which an owner counts as dead


@dataclass(frozen=True)
class Record:
    """A process that owns a run."""

    claim: str  # drawn anew each time, so that no two records are equal
    host: str
    place: str | None  # where the pid means something
    pid: int
    start: str | None  # pids are used again
    job: str | None  # of Slurm

    def has_ended(self) -> bool:
        """Whether the process is known to be gone; one of another place never is."""
        if self.place is None or self.place != find_place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's, which /proc may hide
        now = read_process(self.pid)
        if now is None:
            return False
        # A thread of a process that was killed may still be in the middle of a write.
        return now.start != self.start or (now.state in "ZX" and now.n_threads <= 1)


class Process(NamedTuple):
    """What the system tells about a process."""

    state: str
    n_threads: int
    start: str  # ticks since the boot


class Seen(NamedTuple):
    """The newest owner's file as it was read."""

    token: int
    text: bytes  # none: released
    beat: int  # nanoseconds, by the file system's own clock

    @property
    def record(self) -> Record | None:
        """Who it is; None where the file is damaged."""
        try:
            record = Record(**json.loads(self.text))
        except (TypeError, ValueError):
            return None
        return record if isinstance(record.pid, int) else None

    def describe(self) -> str:
        """The owner as a message shows it."""
        one = self.record
        if one is None:
            return "unknown, its file is damaged" if self.text else "ended since"
        job = f", Slurm job {show(one.job)}" if one.job else ""
        return f"host {show(one.host)}, pid {one.pid}{job}"


class Owner:
    """This process as the owner of a run, until another one takes it over."""

    def __init__(self, folder: Path, token: int, text: bytes) -> None:
        self.folder, self.token, self.text = folder, token, text
        self.path = path_of(folder, token)
        self.released = threading.Event()

    def check(self) -> None:
        """Raise `Interrupted` where this process owns the run no longer, or cannot tell."""
        try:
            seen = read_newest(self.folder)
        except OSError as error:
            why = f"whether this process still owns the run cannot be read ({error})"
            raise Interrupted(f"{self.folder}: {why}. Run it again once it can.") from None
        if seen and seen.token > self.token:
            raise Interrupted(
                f"{self.folder}: this process (token {self.token}) was taken for dead, and the run "
                f"has another owner (token {seen.token}, {seen.describe()}). It writes nothing "
                "more. Run it again when that one has ended."
            )
        if seen is None or seen.text != self.text:
            raise Interrupted(
                f"{self.path}: the file by which this process owns the run was removed or "
                "replaced. It writes nothing more; run it again."
            )

    def is_newest(self) -> bool:
        """Whether no owner came later, and the file is still this one."""
        seen = read_newest(self.folder)
        return seen is not None and seen.text == self.text

    def beat(self) -> None:
        """Touch the file until the run is released or lost."""
        while not self.released.wait(BEAT):
            # A file system may be away for a while: the next beat tries again.
            with contextlib.suppress(OSError):
                if not self.is_newest():
                    return
                os.utime(self.path)

    def release(self) -> None:
        """Let the next owner start at once. Writes nothing where there is one already."""
        try:
            if self.is_newest():
                # Unlike a rename, this makes no file where a new owner has just removed ours.
                os.truncate(self.path, 0)
        except OSError as error:
            logger.warning("%s: not released (%s), it runs out in time", self.path, error)


@contextlib.contextmanager
def own(folder: Path) -> Iterator[Owner]:
    """Own the run in `folder` for the time of the block.

    Waits up to `LEASE` for an owner that does not beat. Raises `Interrupted` where another
    process owns the run, or where the folder cannot be written.
    """
    try:
        owner = claim(Path(folder))
    except OSError as error:
        raise Interrupted(
            f"{folder}: the run cannot be owned ({error}). It must be writable, with room left, on "
            "a file system with hard links; mend that and run it again."
        ) from None
    heart = threading.Thread(target=owner.beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield owner
    finally:
        owner.released.set()
        heart.join()
        owner.release()


def claim(folder: Path) -> Owner:
    """Become the owner, as soon as there is none that lives."""
    folder.mkdir(parents=True, exist_ok=True)
    record = describe_process()
    text = json.dumps(asdict(record)).encode()
    temporary = folder / f".owner-{record.claim}"
    try:
        with open(temporary, "xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        while True:
            owner = Owner(folder, await_turn(folder, temporary) + 1, text)
            # What the link answers is not trusted: a network file system may call the repeat of a
            # lost answer a failure, and a process that was slow may take a token long past.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, owner.path)
            if owner.is_newest():
                sync_folder(folder)
                sweep(folder, owner.token, read_clock(temporary))
                return owner
    finally:
        temporary.unlink(missing_ok=True)


def await_turn(folder: Path, temporary: Path) -> int:
    """The last token, once its owner is none any more. Raises `Interrupted` where it beats."""
    watched, since = None, 0.0
    while True:
        seen, now = read_newest(folder), time.monotonic()
        if seen is None or not seen.text:
            return seen.token if seen else 0
        record = seen.record
        if record and record.has_ended():
            logger.info("%s: its owner (%s) ended without a release", folder, seen.describe())
            return seen.token
        if watched is None or watched.text != seen.text:
            watched, since = seen, now
        elif watched.beat != seen.beat:
            raise Interrupted(
                f"{folder}: another process owns this run and is alive ({seen.describe()}). Let it "
                "finish, or end it there, and run this again."
            )
        # The file system's clock gives both ends of the age. Should it be set back, ours counts.
        if read_clock(temporary) - seen.beat > LEASE * 1e9 or now - since > LEASE:
            who = seen.describe()
            logger.warning("%s: no sign of life from its owner (%s); taken over", folder, who)
            return seen.token
        time.sleep(BEAT / 10)


def read_newest(folder: Path) -> Seen | None:
    """The file with the highest token; None where there is none."""
    tokens = list_tokens(folder)
    if not tokens:
        return None
    token = max(tokens)
    try:
        # Opening makes a network file system ask the server; a `stat` by name may be a memory.
        with open(path_of(folder, token), "rb") as file:
            return Seen(token, file.read(), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        # Removed since it was listed: it owns nothing, and a higher one is seen the next time.
        return Seen(token, b"", 0)


def list_tokens(folder: Path) -> list[int]:
    """The tokens of all owners' files."""
    found = (re.fullmatch(r"owner-(\d+)\.json", name) for name in os.listdir(folder))
    return [int(one[1]) for one in found if one]


def path_of(folder: Path, token: int) -> Path:
    """The file of the owner with this token."""
    return folder / f"owner-{token:06d}.json"


def sweep(folder: Path, token: int, now: int) -> None:
    """Remove what is left of owners before: their files, and what they had begun to write.

    One that only sleeps then has nothing to rename when it wakes. Who waits for its turn stays.
    """
    for lower in list_tokens(folder):
        if lower < token:
            path_of(folder, lower).unlink(missing_ok=True)
    for path in folder.glob(".*"):
        with contextlib.suppress(FileNotFoundError):
            waits = path.name.startswith(".owner-")
            if not waits or now - path.stat().st_mtime_ns > LEASE * 1e9:
                path.unlink()


def read_clock(temporary: Path) -> int:
    """The file system's time in nanoseconds, from touching a file of our own."""
    os.utime(temporary)
    return temporary.stat().st_mtime_ns


def describe_process() -> Record:
    """This process."""
    now = read_process(os.getpid())
    return Record(
        claim=uuid.uuid4().hex,
        host=socket.gethostname(),
        place=find_place(),
        pid=os.getpid(),
        start=now.start if now else None,
        job=os.environ.get("SLURM_JOB_ID"),
    )


def find_place() -> str | None:
    """Host, boot and pid namespace; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def read_process(pid: int) -> Process | None:
    """A running or ended process; None where the system does not tell."""
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Process(state=fields[0], n_threads=int(fields[17]), start=fields[19])
