"""One case of the table: a desk on which its input lies, and what the command makes of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad

from foreign import write_foreign
from tabatlas import cli
from tabatlas.counts import read_counts

# Runs a command in a folder; gives its exit code and stderr.
Run = Callable[[list[str], Path], tuple[int, str]]


@dataclass(frozen=True)
class Desk:
    """The paths of one case within `folder`, and a sound bundle elsewhere."""

    folder: Path
    bundle: Path | None = None

    @property
    def file(self) -> Path:
        """The file of a user."""
        return self.folder / "mine.h5ad"

    @property
    def out(self) -> Path:
        """Where the command writes."""
        return self.folder / "out"

    def settle(self, name: str, **knobs: Any) -> Path:
        """Write a settings file."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(knobs))
        return path

    def fetch(self, adata: ad.AnnData | None = None, **row: Any) -> list[str]:
        """`tabatlas fetch` of a file as its author writes it, or of the one that stands there.

        `row` is that of the dataset table; `settings` in it are those of `fetch`.
        """
        settings = self.settle("fetch", **row.pop("settings", {}))
        if adata is not None:
            write_foreign(self.file, adata)
        about = {"dataset_id": "mine", "path": str(self.file)} | row
        flags = {"row": self.settle("row", **about), "settings": settings, "source": about["path"]}
        return spell(
            "fetch", flags | {"cells": self.out / "cells.h5ad", "facts": self.out / "facts.json"}
        )

    def fetch_bytes(self, content: bytes, name: str = "mine.h5ad", **row: Any) -> list[str]:
        """`tabatlas fetch` of a file of this content."""
        (self.folder / name).write_bytes(content)
        return self.fetch(path=str(self.folder / name), **row)

    def fetch_before(self, adata: ad.AnnData, **row: Any) -> Path:
        """The source h5ad that `fetch` makes of a file, for a later stage."""
        before = Desk(self.folder / "before")
        cli.main(before.fetch(adata, **row))
        return before.out / "cells.h5ad"

    def read_screen(self, **row: Any) -> list[str]:
        """`tabatlas perturb read` of the file that stands there."""
        about = {"dataset_id": "screen", "path": str(self.file)} | row
        flags = {"screen": "screen", "settings": self.settle("perturb", datasets=[about])}
        flags |= {"fetch": self.settle("fetch"), "source": self.file}
        flags |= {"cells": self.out / "cells.h5ad", "facts": self.out / "facts.json"}
        return ["perturb", *spell("read", flags)]

    def qc(self, counts: Path, **knobs: Any) -> list[str]:
        """`tabatlas qc` of a source h5ad."""
        flags = {"counts": counts, "settings": self.settle("qc", **knobs)}
        flags |= {"cells": self.out / "cells.h5ad", "table": self.out / "qc.parquet"}
        return spell("qc", flags | {"facts": self.out / "facts.json"})

    def normalize(self, cells: Path, **knobs: Any) -> list[str]:
        """`tabatlas normalize` of a filtered h5ad."""
        flags = {"cells": cells, "settings": self.settle("normalize", **knobs)}
        flags |= {"normalized": self.out / "cells.h5ad"}
        return spell("normalize", flags | {"facts": self.out / "facts.json"})

    def annotate(self, query: object = None, model: Path | None = None, **flags: Any) -> list[str]:
        """`tabatlas annotate` of the file that stands there, or of another query."""
        given = {"model": model or self.bundle, "out": self.out / "annotated.h5ad"} | flags
        return [*spell("annotate", given), str(query or self.file)]

    @property
    def annotated(self) -> ad.AnnData:
        """The query with its annotation."""
        return ad.read_h5ad(self.out / "annotated.h5ad")

    @property
    def cells(self) -> ad.AnnData:
        """The h5ad that the command left."""
        return read_counts(self.out / "cells.h5ad")

    @property
    def facts(self) -> dict[str, Any]:
        """What the command said about it."""
        return json.loads((self.out / "facts.json").read_text())

    def left(self) -> list[Path]:
        """All that stands where the command writes."""
        return list(self.out.rglob("*"))


def spell(command: str, flags: dict[str, Any]) -> list[str]:
    """A command line."""
    return [command, *(str(word) for flag, value in flags.items() for word in (f"--{flag}", value))]


@dataclass(frozen=True)
class Case:
    """A row of the table.

    `arrange` makes the input and returns the command that meets it: `tabatlas …` without its first
    word, or `snakemake …`. It must end with `code`; its message holds each of `says`: the value,
    the place and the next step. Where the input is accepted by design the code is 0, and `outcome`
    asserts what comes of it. `seconds` is the time that reading may take, where it has no end.
    """

    name: str
    arrange: Callable[[Desk], list[str]]
    says: tuple[str, ...] = ()
    code: int = 3
    outcome: Callable[[Desk], None] | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        assert (self.code == 0) == (self.outcome is not None), self.name
        assert self.code == 0 or len(self.says) >= 2, self.name
