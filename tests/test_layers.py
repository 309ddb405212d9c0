"""The layers of workflow/docs/architecture: each module imports only from earlier lines."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tabatlas.provenance import PACKAGE, imports_of

LAYERS = (
    ("errors", "names"),
    ("settings", "slurm", "provenance", "formats", "blocks"),
    ("genes", "counts", "tables", "ontology", "experiment"),
    ("simulate", "h5ad"),
    ("fetch", "qc", "normalize", "ingest", "split"),
    ("stream", "tabnet"),
    ("pack", "train", "scores"),
    ("pretrain", "finetune"),
    ("integrate", "perturb", "explain"),
    ("bundle",),
    ("annotate",),
    ("report",),
    ("config",),
    ("doctor", "cli"),
    ("__main__",),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
SOURCES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    """The folder or module of the package to which a source file belongs."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_files(path: Path) -> set[Path]:
    """The package's source files that a source file imports."""
    found = (PACKAGE.joinpath(*name.split(".")[1:]) for name in imports_of(path))
    return {module.with_suffix(".py") for module in found if module.with_suffix(".py").is_file()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_earlier_layers(path: Path) -> None:
    own = part_of(path)
    others = {part_of(one) for one in imported_files(path)} - {own}
    assert {other for other in others if LAYER_OF[other] >= LAYER_OF[own]} == set()


def test_no_imports_go_in_a_circle() -> None:
    TopologicalSorter({path: imported_files(path) for path in SOURCES}).prepare()


@pytest.mark.parametrize(
    ("parts", "blocked"),
    [
        (("tabnet",), ("pydantic", "pandas", "scanpy", "tiledbsoma", "anndata")),
        (("fetch", "normalize", "ingest"), ("torch", "scanpy")),
        (("qc", "split"), ("torch",)),
    ],
    ids=lambda names: "-".join(names),
)
def test_folder_does_without(parts: tuple[str, ...], blocked: tuple[str, ...]) -> None:
    paths = [path for path in SOURCES if part_of(path) in parts]
    check_imports(
        [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths],
        blocked,
    )


def test_a_pack_is_read_and_trained_on_without_what_made_it() -> None:
    """GPU nodes need not have TileDB, scanpy or pydantic."""
    modules = ["stream.packed", "pack.shards", "train.engine", "train.predict", "tabnet.classifier"]
    blocked = ("pydantic", "scanpy", "tiledbsoma", "anndata", "h5py")
    check_imports([f"tabatlas.{name}" for name in modules], blocked)


def check_imports(modules: list[str], blocked: tuple[str, ...]) -> None:
    """Modules import none of what is blocked."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"sys.exit(' '.join(set(sys.modules) & {set(blocked)}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert ended.stderr.strip() == ""
