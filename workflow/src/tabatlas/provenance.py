"""Content digests and atomic files: what makes two builds comparable and no file half-written."""

import ast
import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabatlas.errors import InputError

PACKAGE = Path(__file__).parent


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(folder: Path) -> dict[str, str]:
    """sha256 of every file, by its path within the folder, sorted."""
    return {name: digest_file(folder / name) for name in list_files(folder)}


def list_files(folder: Path) -> list[str]:
    """Path within the folder of every file in it, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def digest_json(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well.

    Nothing stands under the final name before it is whole and on the disk; after an error nothing
    is left.
    """
    path = Path(path)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        os.chmod(temporary, 0o666 & ~current_umask())
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        # A disk that fails here too must not hide how it failed first.
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: one that a crash takes back takes all in it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@functools.cache
def current_umask() -> int:
    """The process's umask: `mkstemp` makes private files, shared results should not be."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Write indented JSON with sorted keys atomically."""
    write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", path)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `InputError` where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}). Make it again.") from None


def read_rows(path: Path, live: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file, one after the other.

    Raises `InputError` with the number of a line that holds none; a `live` file, whose writer may
    be under way or have been killed, may have lines in part.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                number += 1
                try:
                    row = json.loads(line)
                except ValueError:
                    if live:
                        continue
                    raise
                if not isinstance(row, dict):
                    raise ValueError("no JSON object")
                yield row
    except (OSError, ValueError) as error:
        place = f"{path}:{number}" if number else path
        raise InputError(f"{place}: not a readable row ({error}). Run its stage again.") from None


def stage_digest(stage: str) -> str:
    """sha256 over the sources that a stage runs: its folder and what it imports of this package.

    Snakemake does not see edits inside an installed package; this makes them a parameter.
    """
    digest = hashlib.sha256()
    sources = stage_sources(stage)
    for path in sources:
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    if PACKAGE / "genes.py" in sources:
        for path in sorted(find_resources().glob("*.gz")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find_resources() -> Path:
    """The folder of tables that come with the package, in an installed wheel or in a checkout."""
    installed = PACKAGE / "resources"
    return installed if installed.exists() else PACKAGE.parents[2] / "resources"


def stage_sources(stage: str) -> list[Path]:
    """Every source file of the package that code in the folder (or module) `stage` can run."""
    waiting = list(source_files(f"tabatlas.{stage}"))
    assert waiting, f"no stage `{stage}`"
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [file for name in imports_of(path) for file in source_files(name)]
    return sorted(seen)


@functools.cache
def source_files(module: str) -> tuple[Path, ...]:
    """The files behind a dotted name: a module's one, a package folder's all."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    if base == PACKAGE:
        return ()
    if base.is_dir():
        return tuple(sorted(path for path in base.rglob("*") if is_source(path)))
    return (base.with_suffix(".py"),) if base.with_suffix(".py").is_file() else ()


def is_source(path: Path) -> bool:
    """Whether a file of a package folder takes part in what the code does."""
    return path.is_file() and "__pycache__" not in path.parts


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names within this package that a source file imports, at any depth."""
    if path.suffix != ".py":
        return frozenset()
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] == PACKAGE.name)
