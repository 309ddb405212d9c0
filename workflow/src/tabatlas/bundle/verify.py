"""Prove that a bundle is what was built, and say what built it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from tabatlas.errors import InputError, IntegrityError, ModelError
from tabatlas.provenance import digest_file, digest_json, list_files, read_json

FORMAT = 1
ABOUT, CARD, SUMS = "bundle.json", "README.md", "SHA256SUMS"
ATLAS_GENES = "atlas_genes.parquet"
# They name the version, so it cannot depend on them.
UNVERSIONED = {ABOUT, CARD, SUMS}


@dataclass(frozen=True)
class Bundle:
    """A bundle of which the description was read; `files` are the sha256 that it states."""

    folder: Path
    about: dict[str, Any]
    files: dict[str, str]

    @property
    def title(self) -> str:
        """`name@version`."""
        return f"{self.about['name']}@{self.about['version']}"

    def read(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return read_json(self.folder / name)


def run(
    bundle: Annotated[Path, "folder NAME@VERSION that `tabatlas bundle` wrote"],
    /,
) -> None:
    """Check every hash of a bundle and say what built it."""
    found = verify_bundle(bundle)
    sys.stdout.write("\n".join(describe_origin(found)) + "\n")


def verify_bundle(folder: Path) -> Bundle:
    """Check the version and every file of a bundle.

    Raises `ModelError` for what is no bundle, or one of another format, and `IntegrityError` for
    a file that is missing or has other bytes.
    """
    bundle = open_bundle(folder)
    for name, expected in bundle.files.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: this file of the bundle is missing. Get it again.")
        if digest_file(path) != expected:
            raise IntegrityError(
                f"{path}: its bytes are not those of {SUMS}. The copy is damaged or was edited; "
                "get it again."
            )
    for name in set(list_files(folder)) - {SUMS, *bundle.files}:
        raise IntegrityError(
            f"{folder / name}: no file of this bundle: {SUMS} does not name it. Take it out."
        )
    semantic = bundle.about["version"].partition("+")[0]
    if name_version(semantic, bundle.files) != bundle.about["version"]:
        raise IntegrityError(
            f"{folder / SUMS}: its hashes do not make up the version {bundle.about['version']}. "
            "The bundle was edited; get it again."
        )
    return bundle


def open_bundle(folder: Path) -> Bundle:
    """Read the description of a bundle and its list of hashes; the files are not looked at."""
    if folder.is_file():
        raise ModelError(
            f"{folder}: a file, but a bundle is the folder NAME@VERSION that `tabatlas bundle` "
            "writes. Pickled models (.pt, .pkl) are never loaded: they can run any code."
        )
    for name in (ABOUT, SUMS):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder / name}: missing, so this is no bundle. Give the folder NAME@VERSION "
                "that `tabatlas bundle` writes."
            )
    try:
        about = read_json(folder / ABOUT)
    except InputError:
        about = None
    if not (isinstance(about, dict) and {"format", "name", "version"} <= about.keys()):
        raise ModelError(f"{folder / ABOUT}: not the description of a bundle. Get it again.")
    if about["format"] != FORMAT:
        raise ModelError(
            f"{folder / ABOUT}: bundle of format {about['format']}, but this tabatlas reads "
            f"format {FORMAT}. Use the tabatlas that wrote it, or update this one."
        )
    return Bundle(folder, about, read_sums(folder / SUMS))


def read_sums(path: Path) -> dict[str, str]:
    """Path within the folder → sha256, as `sha256sum` writes them."""
    files = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = [""]
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        place = PurePosixPath(name)
        if len(digest) != 64 or not name or place.is_absolute() or ".." in place.parts:
            raise IntegrityError(f"{path} line {number}: no hash of a file. Get the bundle again.")
        files[name] = digest
    return files


def name_version(semantic: str, files: Mapping[str, str]) -> str:
    """Semantic version and a digest of the content: what two builds of one source agree in."""
    content = {name: digest for name, digest in files.items() if name not in UNVERSIONED}
    return f"{semantic}+{digest_json(content)[:12]}"


def describe_origin(bundle: Bundle) -> list[str]:
    """Lines on what was verified and what built it."""
    metrics, code = bundle.read("metrics.json"), bundle.read("code.json")
    versions = ", ".join(f"{name} {version}" for name, version in code["versions"].items())
    sources = [f"  {name}  sha256 {digest}" for name, digest in sorted(metrics["sources"].items())]
    return [
        f"{bundle.title}: {len(bundle.files)} files, every hash is right",
        f"atlas: {metrics['atlas']['n_obs']} cells, experiment {metrics['atlas']['digest']}",
        "sources:",
        *sources,
        f"code: {', '.join(f'{stage} {digest}' for stage, digest in code['stages'].items())}",
        f"libraries: {versions}",
    ]
