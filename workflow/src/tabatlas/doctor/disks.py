"""Checks of disks: what the results and the scratch folder can do, and how fast."""

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tabatlas.doctor.findings import Finding, Site, elsewhere, failed, ok, unknown
from tabatlas.errors import show
from tabatlas.provenance import sync_folder

BULK = 16 * 2**20  # bytes
N_SMALL = 20  # files
# A checkpoint of a large model is some 300 MB and comes every 5 minutes: at 10 MB/s a training
# would spend a tenth of its time on it.
SLOWEST = 10.0  # MB/s
# A trainer shows every 5 s that it lives, and is taken for dead after 60 s without a sign.
LONGEST = 1000.0  # ms
# Snakemake refuses an output that is older than its input. No job is over sooner than this after
# the one before it.
SKEW = 2.0  # s
SPACE = 2.0  # GB: TileDB and Snakemake fail in many ways on a full disk
LITTLE_SPACE = 0.1  # GB: for temporary files of this machine, which a login node has few of
TRIES = 3  # a disk that others use may be slow for a moment
S3_PATIENCE = {"vfs.s3.connect_max_tries": "2", "vfs.s3.connect_timeout_ms": "5000"}


class Pace(NamedTuple):
    """How fast a folder is."""

    megabytes: float  # per second, written and synced
    milliseconds: float  # median of a small file: made, synced, renamed, its folder synced
    ahead: float  # seconds by which its clock is ahead of ours, at least

    @property
    def is_slow(self) -> bool:
        """Whether a training would suffer."""
        return self.megabytes < SLOWEST or self.milliseconds > LONGEST


def check_scratch(site: Site) -> Iterator[Finding]:
    """Whether the folder for temporary files can be written."""
    space = LITTLE_SPACE if site.uses_slurm else SPACE
    finding = examine(Path(tempfile.gettempdir()), "TMPDIR", space, linked=False)
    yield elsewhere(site, finding)


def check_results(site: Site) -> Iterator[Finding]:
    """Whether the project's folder can do what a training needs of it."""
    yield examine(site.results, "a disk", SPACE, linked=True)


def examine(folder: Path, cure: str, space: float, linked: bool) -> Finding:
    """Write in a folder, and judge how that went."""
    try:
        pace = measure_patiently(folder, linked)
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        what = "be written, renamed, synced and hard-linked" if linked else "be written"
        return failed(f"{folder}: {error}. It must {what}; choose {cure} that can")
    told = (
        f"{folder}: {pace.megabytes:.0f} MB/s, {pace.milliseconds:.1f} ms for a small file, "
        f"{free:.0f} GB free"
    )
    if pace.is_slow:
        limits = f"{SLOWEST:g} MB/s and {LONGEST:g} ms"
        return failed(f"{told}: slower than {limits}. Choose {cure} that is faster")
    if free < space:
        return failed(f"{told}: less than {space:g} GB. Make room")
    return judge_clock(told, pace.ahead)


def judge_clock(told: str, ahead: float) -> Finding:
    """Compare the clocks of this machine and of the disk."""
    if abs(ahead) <= SKEW:
        return ok(told)
    side = "ahead of" if ahead > 0 else "behind"
    return failed(
        f"{told}: its clock is {abs(ahead):.1f} s {side} this machine's, at most {SKEW:g} are "
        "possible. Have both synchronized (NTP)"
    )


def measure_patiently(folder: Path, linked: bool) -> Pace:
    """The first pace that is not slow, else the last."""
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as name:
            pace = measure(Path(name), linked)
        if not pace.is_slow:
            break
    return pace


def measure(folder: Path, linked: bool) -> Pace:
    """Write, sync, rename and link files in a folder. Raises `OSError` where it can't."""
    noise = os.urandom(BULK)  # some file systems compress
    began = time.perf_counter()
    write_synced(folder / "bulk", noise)
    bulk = time.perf_counter() - began
    small = [time_small(folder, number) for number in range(N_SMALL)]
    if linked:
        os.link(folder / "bulk", folder / "link")
    before = time.time()
    write_synced(folder / "clock", b"")
    with open(folder / "clock", "rb") as file:  # a network file system asks its server
        stamp = os.fstat(file.fileno()).st_mtime
    after = time.time()
    ahead = min(0.0, stamp - before) or max(0.0, stamp - after)
    return Pace(BULK / 1e6 / bulk, 1e3 * statistics.median(small), ahead)


def time_small(folder: Path, number: int) -> float:
    """Seconds that a small file takes to be there for good."""
    began = time.perf_counter()
    write_synced(folder / ".small", b"small")
    os.replace(folder / ".small", folder / f"small{number}")
    sync_folder(folder)
    return time.perf_counter() - began


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_experiment(site: Site) -> Iterator[Finding]:
    """Whether the place of the SOMA experiment can be reached."""
    uri = site.config.ingest.uri if site.config else None
    if site.config is None:
        yield unknown("no --configfile, so that its place is unknown")
    elif uri is None:
        yield ok("in the results")
    elif "://" in uri:
        yield reach_store(uri)
    else:
        folder = next(one for one in (Path(uri), *Path(uri).parents) if one.is_dir())
        yield examine(folder, "another `ingest.uri`", SPACE, linked=False)


def reach_store(uri: str) -> Finding:
    """Ask a remote store for what is at `uri`; nothing is written there."""
    try:
        import tiledbsoma
    except ImportError as error:
        return failed(f"{uri}: {error}. Install what is missing")
    context = tiledbsoma.SOMATileDBContext(tiledb_config=S3_PATIENCE)
    try:
        with contextlib.closing(tiledbsoma.Collection.open(uri, context=context)):
            return ok(f"{uri}: answers")
    except tiledbsoma.SOMAError as error:
        # An empty place is "Group does not exist"; a store that refuses says more.
        if "S3:" not in str(error) and "does not exist" in str(error):
            return ok(f"{uri}: answers, nothing there yet")
        reason = str(error).rpartition(" : ")[2]  # behind headers of the request
        return failed(
            f"{uri}: {show(reason)}. Check the bucket, the credentials (AWS_*) and the endpoint "
            "(TILEDB_VFS_S3_*)"
        )
