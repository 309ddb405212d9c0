"""Numbers and labels as the page words them; what is not known is a dash."""

import unicodedata
from collections.abc import Mapping
from typing import Any

DASH = "–"
MINUS = "−"


def format_count(value: int | None) -> str:
    """A whole number in groups of three: 12,345."""
    return DASH if value is None else f"{value:,.0f}"


def format_score(value: float | None) -> str:
    """A score or a loss with three decimals."""
    if value is None:
        return DASH
    return f"{round(value, 3) + 0.0:.3f}".replace("-", MINUS)  # + 0.0: no minus before zero


def format_interval(score: Mapping[str, float | None]) -> str:
    """The interval of a score."""
    low, high = score["low"], score["high"]
    return DASH if None in (low, high) else f"{format_score(low)} to {format_score(high)}"


def format_percent(share: float | None) -> str:
    """A share within 0..1 as percent; shares that are not quite 0 or 1 do not look so."""
    if share is None:
        return DASH
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def format_seconds(seconds: float | None) -> str:
    """A duration in the unit that suits it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def format_mebibytes(mebibytes: float | None) -> str:
    """Memory, given in MiB as Snakemake measures it."""
    if mebibytes is None:
        return DASH
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def format_value(value: Any) -> str:
    """A setting as YAML would show it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{key}: {format_value(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    return str(value) if value != "" else "''"


def format_noun(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun: 1 cell, 2 cells."""
    return f"{format_count(n)} {noun if n == 1 else plural or noun + 's'}"


def shorten_label(label: str, width: int) -> str:
    """A label of at most `width` columns on one line; wide characters take two."""
    text = " ".join(label.split())
    if measure_label(text) <= width:
        return text
    kept = ""
    for letter in text:
        if measure_label(kept + letter) >= width:
            break
        kept += letter
    return kept.rstrip() + "…"


def measure_label(text: str) -> int:
    """Columns that a text takes in a fixed-width font: East Asian letters and emoji take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
