"""What bundles a folder holds, and what one of them can do."""

import sys
from pathlib import Path
from typing import Annotated

from tabatlas.bundle.verify import ABOUT, CARD, Bundle, describe_origin, open_bundle, verify_bundle
from tabatlas.errors import InputError, TabatlasError


def list_(
    folder: Annotated[Path, "folder with bundles, such as results/ATLAS/bundle"],
    /,
) -> None:
    """List the bundles of a folder; their files are not checked."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Check the path.")
    # A name that begins with a dot is a bundle in the making.
    found = sorted(path.parent for path in folder.glob(f"[!.]*/{ABOUT}"))
    if not found:
        raise InputError(f"{folder}: no bundle in it. Give the folder that holds NAME@VERSION.")
    rows = [("model", "organism", "genes", "types", "cells", "macro-F1")]
    rows += [summarize_folder(path) for path in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def info(
    bundle: Annotated[Path, "folder NAME@VERSION"],
    /,
) -> None:
    """Verify a bundle and print its model card, and what built it."""
    found = verify_bundle(bundle)
    card = (bundle / CARD).read_text(encoding="utf-8")
    sys.stdout.write(card + "\n## Origin\n\n" + "\n".join(describe_origin(found)) + "\n")


def summarize_folder(folder: Path) -> tuple[str, ...]:
    """A row of the list; a bundle that cannot be read says so and hides no other."""
    try:
        return summarize_bundle(open_bundle(folder))
    except (TabatlasError, KeyError, TypeError):
        return (folder.name, f"not readable: tabatlas verify {folder}", "", "", "", "")


def summarize_bundle(bundle: Bundle) -> tuple[str, ...]:
    """A row of the list: how large the model is and how well it does on its test cells."""
    about, metrics = bundle.read("config.json"), bundle.read("metrics.json")
    tested = metrics["finetune"]["methods"]
    return (
        bundle.title,
        about["organism"],
        str(about["n_genes"]),
        str(about["n_classes"]),
        str(metrics["atlas"]["n_obs"]),
        f"{tested['tabnet']['macro_f1']['value']:.3f}" if tested else "not tested",
    )
