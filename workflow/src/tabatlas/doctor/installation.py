"""Checks of what is installed: Python, packages, torch, the executor, and where all of it lies."""

import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from tabatlas.doctor.findings import Finding, Site, elsewhere, failed, ok, unknown
from tabatlas.errors import show_some

PLUGIN = "snakemake-executor-plugin-slurm"
INSTALL = "Install again: pip install -c envs/constraints.txt -e '.[slurm]'"
# In a process of its own: a broken build may crash, and snakemake need not hold torch for days.
LOOK = (
    "import json, torch\n"
    "n = torch.cuda.device_count()\n"
    "print(json.dumps([torch.__version__, torch.version.cuda,"
    " [torch.cuda.get_device_name(i) for i in range(n)]]))"
)
LOOK_SECONDS = 180  # a first import from a busy shared disk
SHARED = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|glusterfs|afs|cifs|smb|weka|pvfs|orange|fhgfs")


def check_packages(site: Site) -> Iterator[Finding]:
    """Whether what the package needs has the versions of `envs/constraints.txt`."""
    if site.project is None:
        yield unknown("no envs/constraints.txt here; run it from the project's folder")
        return
    pins = read_pins(site.project / "envs" / "constraints.txt")
    try:
        direct = list_needs("tabatlas", {"", "slurm"} if site.uses_slurm else {""})
    except importlib.metadata.PackageNotFoundError:
        yield failed(f"tabatlas itself is not installed. {INSTALL}")
        return
    except ImportError as error:
        yield failed(f"{error}. {INSTALL}")
        return
    version = sys.version.split()[0]
    wrong = compare_versions(direct, pins)
    if wrong:
        yield failed(f"not as in envs/constraints.txt (in brackets): {show_some(wrong)}. {INSTALL}")
    else:
        yield ok(f"Python {version}, and {len(direct)} packages as in envs/constraints.txt")
    # What stands behind those may come from elsewhere, from conda for example.
    others = compare_versions([name for name in pins if find_version(name)], pins)
    if others and not wrong:
        yield unknown(
            f"other than in envs/constraints.txt (in brackets): {show_some(others, 5)}. Results "
            "may differ in their last digits"
        )


def compare_versions(names: Iterable[str], pins: Mapping[str, str]) -> list[str]:
    """The packages that are missing, or of another version than pinned."""
    found = {name: find_version(name) for name in names}
    return [
        f"{name} {version or 'missing'} ({pins.get(name, 'any')})"
        for name, version in found.items()
        if version is None or version != pins.get(name, version)
    ]


def read_pins(path: Path) -> dict[str, str]:
    """The version of each package in a constraints file, by normalized name."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {normalize(name): version for name, version in pairs}


def normalize(name: str) -> str:
    """A package's name as all spellings of it have in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_needs(package: str, extras: set[str]) -> list[str]:
    """The packages that an installed one asks for, here and with these extras."""
    from packaging.requirements import Requirement

    needs = map(Requirement, importlib.metadata.requires(package) or ())
    return sorted(
        normalize(one.name)
        for one in needs
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    )


def find_version(package: str) -> str | None:
    """The installed version without its build (`+cpu`); None where there is none."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch(site: Site) -> Iterator[Finding]:
    """Whether torch can be imported, and is a build for what is here and what is asked."""
    torch, cards, wanted = look_at_torch(), list_cards(), list_wanting(site)
    if isinstance(torch, str):
        yield elsewhere(site, failed(f"cannot be imported: {torch}. {INSTALL}"))
        return
    version, cuda, _ = torch
    build = f"{version}, {f'for CUDA {cuda}' if cuda else 'a build for CPUs'}"
    if cuda is None and (cards or wanted):
        why = f"`device: cuda` of {', '.join(wanted)}" if wanted else f"the GPU here, {cards[0]}"
        yield failed(f"{build}: no use for {why}. Install PyPI's default build of torch")
    elif cuda is None and any(request.n_gpus for request in site.requests):
        yield unknown(f"{build}: jobs that ask for GPUs will train on CPUs, unless `device: cuda`")
    else:
        yield ok(build)


def check_gpu(site: Site) -> Iterator[Finding]:
    """Whether torch sees the GPUs of this machine, where there should be some."""
    torch, cards, wanted = look_at_torch(), list_cards(), list_wanting(site)
    seen = [] if isinstance(torch, str) else torch[2]
    in_job = "SLURM_JOB_GPUS" in os.environ  # Slurm sets it where a job was given GPUs
    if seen:
        yield ok(f"{len(seen)} × {seen[0]} ({cards[0] if cards else 'no nvidia-smi'})")
    elif cards:
        yield failed(f"{cards[0]} is here, torch sees none. Make driver and build of torch match")
    elif in_job or (wanted and not site.uses_slurm):
        why = "this job was given one" if in_job else f"`device: cuda` of {', '.join(wanted)}"
        yield failed(f"none here, but {why}. Go to a machine that has one")
    else:
        yield unknown("none here. Where they are: srun --partition=… --gpus=1 tabatlas doctor")


def list_wanting(site: Site) -> list[str]:
    """The stages that are told to train on a GPU."""
    return [stage for stage, device in site.devices.items() if device == "cuda"]


@functools.cache
def look_at_torch() -> tuple[str, str | None, list[str]] | str:
    """Version, CUDA version and GPUs as torch sees them; the reason where it does not load."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=LOOK_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {LOOK_SECONDS} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return tuple(json.loads(done.stdout.strip().splitlines()[-1]))


def list_cards() -> list[str]:
    """Name, memory and driver of each GPU, as the driver tells."""
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        told = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if told.returncode else told.stdout.strip().splitlines()


def check_plugin(site: Site) -> Iterator[Finding]:
    """Whether Snakemake can talk to Slurm, where a profile wants that."""
    if site.named and site.profile is None:
        yield failed(f"profile {site.named}: Snakemake or {PLUGIN} is missing. {INSTALL}")
    elif site.uses_slurm:
        yield ok(f"{PLUGIN} {find_version(PLUGIN)}")


def has_plugin() -> bool:
    """Whether the executor is installed: without it no profile for Slurm can be read."""
    return find_spec(PLUGIN.replace("-", "_")) is not None


def check_sharing(site: Site) -> Iterator[Finding]:
    """Whether other nodes can see the Python environment and the project's folder."""
    if not site.uses_slurm:
        return
    nodes = [node for one in (site.partitions or {}).values() for node in one.nodes]
    if nodes and all(node.is_here for node in nodes):
        yield ok("every node of the cluster is this machine")
        return
    for title, path in (("environment", Path(sys.prefix)), ("project", Path.cwd())):
        kind = find_file_system(path)
        if SHARED.search(kind):
            yield ok(f"{title}: {path} ({kind})")
        elif is_temporary(path) or kind in ("tmpfs", "ramfs"):
            yield failed(
                f"{title}: {path}: on this machine alone ({kind}). Move it to a disk "
                "that all nodes see"
            )
        else:
            yield unknown(f"{title}: {path} ({kind}): do all nodes see it? srun ls -d {path}")


def is_temporary(path: Path) -> bool:
    """Whether a path is below a folder for temporary files."""
    places = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")}
    return any(path.resolve().is_relative_to(place.resolve()) for place in places)


def find_file_system(path: Path) -> str:
    """The type of the file system that holds a path, as `/proc/mounts` calls it."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    real = path.resolve()
    mounts = [(len(place), kind) for _, place, kind, *_ in rows if real.is_relative_to(place)]
    return max(mounts, default=(0, "unknown"))[1]
