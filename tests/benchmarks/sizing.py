"""The sizing table of workflow/docs/slurm.md, by arithmetic.

    python tests/benchmarks/sizing.py [--speedup 50] [--counts 1900] [--write]

Memory is what the rules ask for. Bytes and CPU seconds were measured (the page says where), how
much faster a GPU is was not. `--write` puts the tables into the page.
"""

import argparse
import re
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

from tabatlas.qc.settings import QCSettings

WORKFLOW = Path(__file__).parents[2] / "workflow"
PAGE = WORKFLOW / "docs" / "slurm.md"
PLACE = re.compile(r"(?<=<!-- sizing -->\n).*?(?=<!-- /sizing -->)", re.DOTALL)
MEMORY = re.compile(
    r"^rule (\w+):(?:(?!^rule ).)*?mem_mb=memory\((\d+)(?:, per_thousand_cells=([\d.]+))?"
    r"(, most_cells=LARGEST_LIBRARY)?",
    re.MULTILINE | re.DOTALL,
)
PER_DATASET = ("fetch", "qc", "normalize", "append", "read_screen")  # the others read all cells

LIBRARY = QCSettings().doublet_max_cells
COUNTS = 1900  # stored counts of a cell
# Bytes on disk of a stored count.
H5AD = 3.5  # each of three: fetched, filtered, normalized
SOMA = 1.8
PACK = 4.0
# CPU seconds of one cell in a step of training, and the epochs of the defaults.
TRAININGS = {
    "pretrain": (0.89 / 1024, 30),
    "finetune": (0.51 / 1024, 15 * 3),  # and its two replicates
    "integrate": (0.89 / 1024, 100),
}
SPEEDUP = 50  # CPU seconds' worth of training that a GPU does in a second


class Size(NamedTuple):
    """Numbers of cells of an atlas, and of its largest dataset."""

    cells: int
    dataset: int


SIZES = (Size(1_000_000, 125_000), Size(20_000_000, 500_000), Size(100_000_000, 1_000_000))


def read_memory() -> dict[str, tuple[float, float, float]]:
    """MB that each rule asks for, whatever it reads and per cell; the most cells that it holds."""
    text = "\n".join(path.read_text() for path in sorted((WORKFLOW / "rules").glob("*.smk")))
    return {
        rule: (float(base), float(per_thousand or 0) / 1000, LIBRARY if capped else inf)
        for rule, base, per_thousand, capped in MEMORY.findall(text)
    }


def find_largest(size: Size, per_dataset: bool) -> tuple[float, str]:
    """GB of the rule that asks for most, of those that read one dataset or all cells."""
    asked = {
        rule: base + each * min(most, size.dataset if per_dataset else size.cells)
        for rule, (base, each, most) in read_memory().items()
        if (rule in PER_DATASET) == per_dataset
    }
    rule = max(asked, key=asked.__getitem__)
    return asked[rule] / 1000, rule


def count_gpu_hours(cells: int, speedup: float) -> dict[str, float]:
    """Hours of one GPU by stage, if every epoch is needed."""
    return {
        stage: cells * seconds * epochs / speedup / 3600
        for stage, (seconds, epochs) in TRAININGS.items()
    }


def write_table(counts: int = COUNTS, speedup: float = SPEEDUP) -> Iterator[str]:
    """The table's lines."""
    yield "| cells | GPU hours | largest job of all cells | largest dataset | its largest job |"
    yield "|---|---|---|---|---|"
    for size in SIZES:
        hours = sum(count_gpu_hours(size.cells, speedup).values())
        (whole, rule), (one, own) = (find_largest(size, flag) for flag in (False, True))
        yield (
            f"| {size.cells / 1e6:.0f} M | {hours:,.1f} | {whole:,.0f} GB (`{rule}`) "
            f"| {size.dataset / 1e6:g} M | {one:,.0f} GB (`{own}`) |"
        )
    yield ""
    yield "| cells | SOMA | training cache | the rest, which may go | in all |"
    yield "|---|---|---|---|---|"
    for size in SIZES:
        soma, pack, rest = (size.cells * counts * each / 1e9 for each in (SOMA, PACK, 3 * H5AD))
        whole = soma + pack + rest
        yield (
            f"| {size.cells / 1e6:.0f} M | {soma:,.0f} GB | {pack:,.0f} GB | {rest:,.0f} GB "
            f"| {whole:,.0f} GB |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, default=COUNTS, help="stored counts of a cell")
    parser.add_argument("--speedup", type=float, default=SPEEDUP, help="of a GPU over a CPU core")
    parser.add_argument("--write", action="store_true", help="into the page")
    given = parser.parse_args()
    table = "\n".join(write_table(given.counts, given.speedup)) + "\n"
    if given.write:
        PAGE.write_text(PLACE.sub(lambda _: table, PAGE.read_text()))
    else:
        print(table, end="")


if __name__ == "__main__":
    main()
