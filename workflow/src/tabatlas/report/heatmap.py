"""A heatmap: what its squares say, room for the names, squares as large as their number allows."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabatlas.report.wording import (
    format_count,
    format_noun,
    format_percent,
    measure_label,
    shorten_label,
)

NAME_COLUMNS = 34  # longer names are shortened
LETTER = 0.57  # mean width of a letter, as a share of the font's size, in wide fonts
CAPITAL = 1.25  # width of a capital letter, of which gene names consist, beside that mean
PALE = 0.02  # share of the largest value that is too pale to see
SLANT = 0.72  # height, and width, of a name at 45°


@dataclass(frozen=True)
class Square:
    """How dark a square is (0..1), the number in it, and what its tip adds to the names."""

    shade: float
    number: str
    text: str


def square_counts(counts: Sequence[Sequence[int]]) -> list[list[Square | None]]:
    """Cells as shares of their row, in percent; None where there is none."""
    return [
        [square_share(n, total) if n else None for n in row]
        for row, total in ((row, sum(row)) for row in counts)
    ]


def square_share(n_cells: int, total: int) -> Square:
    """Some of a row's cells."""
    share = n_cells / total
    number = "<1" if share < 0.005 else str(round(100 * share))
    whole = f"{format_noun(n_cells, 'cell')} of {format_count(total)}"
    return Square(share, number, f"{whole} ({format_percent(share)})")


def square_importances(values: Sequence[Sequence[float]]) -> list[list[Square | None]]:
    """Importances in thousandths, the largest the darkest; None where nothing would be seen."""
    largest = max((value for row in values for value in row), default=0)
    return [
        [
            Square(value / largest, f"{1000 * value:.0f}", f"importance {value:.5f}")
            if value > PALE * largest
            else None
            for value in row
        ]
        for row in values
    ]


@dataclass(frozen=True)
class HeatmapLayout:
    """Pixels: squares of `wide` × `high`, names of columns above `top`, of rows beside."""

    wide: int
    high: int
    font: int
    angle: int
    names_width: float
    top: float
    width: float
    height: float

    @property
    def has_numbers(self) -> bool:
        """Whether a number fits into a square."""
        return self.angle == 45


def lay_out_heatmap(rows: Sequence[str], columns: Sequence[str]) -> HeatmapLayout:
    """Large squares with numbers up to 14 names a side, small ones that can be scrolled beyond."""
    size = max(len(rows), len(columns))
    wide, high, font = (38, 26, 11) if size <= 14 else (20, 20, 11) if size <= 40 else (11, 11, 9)
    slanted = size <= 14
    reach = measure_names(columns, font)
    top = 12 + CAPITAL * reach * (SLANT if slanted else 1)
    width = wide * len(columns) + (reach * SLANT if slanted else 2)
    return HeatmapLayout(
        wide=wide,
        high=high,
        font=font,
        angle=45 if slanted else 90,
        names_width=round(measure_names(rows, font) + 8, 1),
        top=round(top, 1),
        width=round(width, 1),
        height=round(top + high * len(rows), 1),
    )


def measure_names(names: Sequence[str], font: int) -> float:
    """Pixels that the longest name takes."""
    return LETTER * font * max(measure_label(name_side(name)) for name in names)


def name_side(name: str) -> str:
    """A name as it stands beside a heatmap."""
    return shorten_label(name, NAME_COLUMNS)
