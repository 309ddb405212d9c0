"""The page: templates filled with the summary and the run's facts, and nothing else."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tabatlas.report import wording
from tabatlas.report.scale import fit_axis

FILTERS = {
    "count": wording.format_count,
    "score": wording.format_score,
    "percent": wording.format_percent,
    "decimal": wording.format_decimal,
    "seconds": wording.format_seconds,
    "mebibytes": wording.format_mebibytes,
    "value": wording.format_value,
    "shorten": wording.shorten_label,
}


def render_page(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The whole HTML page.

    Its Content-Security-Policy lets only the page's own style and script run and nothing load,
    so that a hostile label stays text even where escaping should fail.
    """
    environment = open_templates()
    style, script = (
        digest_source(environment.get_template(name).render()) for name in ("page.css", "page.js")
    )
    page = environment.get_template("page.html")
    return page.render(summary=summary, facts=facts, style_digest=style, script_digest=script)


def open_templates() -> Environment:
    """The environment of the templates: everything escaped, nothing undefined."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals |= {
        "fit_axis": fit_axis,
        "measure_names": measure_names,
        "noun": wording.format_noun,
    }
    return environment


def measure_names(names: Sequence[str], font: float) -> float:
    """Pixels that the longest name takes on a chart, shortened as the heatmap shortens it.

    0.57 of the font's size is the mean width of a letter in wide fonts.
    """
    columns = (wording.measure_label(wording.shorten_label(name, 34)) for name in names)
    return round(0.57 * font * max(columns), 1)


def digest_source(source: str) -> str:
    """Digest of an inline style or script as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
