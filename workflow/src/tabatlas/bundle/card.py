"""The model card: what a user must know, written from the numbers."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tabatlas.bundle.settings import BundleSettings
from tabatlas.integrate.methods import TITLES


def write_card(
    name: str, settings: BundleSettings, about: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """The card as Markdown; it holds no time, host or path, so that builds can be compared."""
    environment = Environment(
        loader=PackageLoader("tabatlas.bundle"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": escape_cell, "score": format_score}
    template = environment.get_template("card.md")
    given = {"settings": settings, "about": about, "embeddings": TITLES}
    return template.render(name=name, **given, **metrics)


def format_score(value: float | None) -> str:
    """A score with three decimals; a dash for one that is not defined."""
    return "–" if value is None else f"{value:.3f}"


def escape_cell(value: object) -> str:
    """Text for a cell of a Markdown table: one line, no markup of its own."""
    text = " ".join(str(value).split())
    for sign in "\\`*_{}[]<>|":
        text = text.replace(sign, "\\" + sign)
    return text
