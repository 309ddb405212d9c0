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

from tabatlas import slurm
from tabatlas.errors import Interrupted, show
from tabatlas.provenance import make_folder, sync_folder

logger = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two heartbeats
LEASE = 60.0  # seconds without one after which an owner counts as dead


@dataclass(frozen=True)
class Process:
    """A process that owns a run."""

    claim: str  # drawn anew each time, so that no two are equal
    host: str
    place: str | None  # where the pid means something
    pid: int
    start: str | None  # in ticks since the boot: pids are used again
    job: str | None  # of Slurm
    cluster: str | None = None  # where that number means something

    def __str__(self) -> str:
        job = f", Slurm job {show(self.job)}" if self.job else ""
        return f"host {show(self.host)}, pid {show(self.pid)}{job}"

    def has_ended(self) -> bool:
        """Whether it is known to be gone; one of another place never is."""
        if self.place is None or self.place != find_place():
            return False
        try:
            os.kill(self.pid, 0)
            fields = read_stat(self.pid)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError, TypeError):  # another user's, or no pid at all
            return False
        state, n_threads, start = fields[0], int(fields[17]), fields[19]
        # A thread of a process that was killed may still be in the middle of a write.
        return start != self.start or (state in "ZX" and n_threads <= 1)


class Seen(NamedTuple):
    """The newest owner's file as it was read."""

    token: int
    text: bytes  # none: released
    beat: int  # nanoseconds, by the file system's own clock
    user: int | None = None

    @property
    def process(self) -> Process | None:
        """Who it is; None where that cannot be read."""
        with contextlib.suppress(TypeError, ValueError):
            return Process(**json.loads(self.text))

    def is_given_up(self) -> bool:
        """Whether Slurm has ended its job, whatever it still does on a node that is cut off."""
        found = self.process
        if not found or not found.job or self.user != os.getuid():
            return False
        return found.cluster == os.environ.get("SLURM_CLUSTER_NAME") and slurm.is_over(found.job)

    def __str__(self) -> str:
        return str(self.process or ("unknown, its file is damaged" if self.text else "ended since"))


class Owner:
    """This process as the owner of a run, until another one takes it over."""

    def __init__(self, folder: Path, token: int, text: bytes) -> None:
        self.folder, self.token, self.text = folder, token, text
        self.path = path_of(folder, token)
        self.released = threading.Event()

    def check(self) -> None:
        """Raise `Interrupted` where this process owns the run no longer, or cannot tell."""
        try:
            seen = read_owner(self.folder)
        except OSError as error:
            why = f"whether this process still owns the run cannot be read ({error})"
            raise Interrupted(f"{self.folder}: {why}. Run it again once it can.") from None
        if seen.token > self.token:
            raise Interrupted(
                f"{self.folder}: this process (token {self.token}) was taken for dead, and the run "
                f"has another owner (token {seen.token}, {seen}). It writes nothing more. Run it "
                "again when that one has ended."
            )
        if seen.text != self.text:
            raise Interrupted(
                f"{self.path}: the file by which this process owns the run was removed or "
                "replaced. It writes nothing more; run it again."
            )

    def is_newest(self) -> bool:
        """Whether no owner came later, and the file is still this one."""
        return read_owner(self.folder).text == self.text

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
    make_folder(folder)
    process = describe_process()
    text = json.dumps(asdict(process)).encode()
    temporary = folder / f".owner-{process.claim}"
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
        seen, now = read_owner(folder), time.monotonic()
        if not seen.text or (seen.process and seen.process.has_ended()):
            return seen.token
        if watched is None or watched.text != seen.text:
            watched, since = seen, now
            if seen.is_given_up():
                logger.warning("%s: the job of its owner is over (%s); taken over", folder, seen)
                return seen.token
        elif watched.beat != seen.beat:
            raise Interrupted(
                f"{folder}: another process owns this run and is alive ({seen}). Let it finish, or "
                "end it there, and run this again."
            )
        # The file system's clock gives both ends of the age. Should it be set back, ours counts.
        if read_clock(temporary) - seen.beat > LEASE * 1e9 or now - since > LEASE:
            logger.warning("%s: no sign of life from its owner (%s); taken over", folder, seen)
            return seen.token
        time.sleep(BEAT / 10)


def read_owner(folder: Path) -> Seen:
    """The file with the highest token; without one it is as if the zeroth were released."""
    token = max(list_tokens(folder), default=0)
    try:
        # Opening makes a network file system ask the server; a `stat` by name may be a memory.
        with open(path_of(folder, token), "rb") as file:
            status = os.fstat(file.fileno())
            return Seen(token, file.read(), status.st_mtime_ns, status.st_uid)
    except FileNotFoundError:
        # None, or removed since it was listed: a higher one is seen the next time.
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
        # A folder is none of ours; what NFS keeps for somebody who has it open has lost its name.
        with contextlib.suppress(OSError):
            waits = path.name.startswith(".owner-")
            if not waits or now - path.stat().st_mtime_ns > LEASE * 1e9:
                path.unlink()


def read_clock(temporary: Path) -> int:
    """The file system's time in nanoseconds, from touching a file of our own."""
    os.utime(temporary)
    return temporary.stat().st_mtime_ns


def describe_process() -> Process:
    """This process."""
    place = find_place()
    return Process(
        claim=uuid.uuid4().hex,
        host=socket.gethostname(),
        place=place,
        pid=os.getpid(),
        start=read_stat(os.getpid())[19] if place else None,
        job=os.environ.get("SLURM_JOB_ID"),
        cluster=os.environ.get("SLURM_CLUSTER_NAME"),
    )


def find_place() -> str | None:
    """Host, boot and pid namespace; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def read_stat(pid: int) -> list[str]:
    """What the system tells about a process after its name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
