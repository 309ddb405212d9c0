"""The page: templates filled with the summary and the run's facts, and nothing else."""

import base64
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tabatlas.integrate.methods import TITLES
from tabatlas.report import wording
from tabatlas.report.explanation import trace_deletion
from tabatlas.report.heatmap import (
    lay_out_heatmap,
    name_side,
    square_counts,
    square_importances,
)
from tabatlas.report.perturbation import METHODS
from tabatlas.report.scale import fit_axis, fit_score_axis
from tabatlas.report.scatter import draw_scatter, rank_groups

FILTERS = {
    "count": wording.format_count,
    "score": wording.format_score,
    "interval": wording.format_interval,
    "percent": wording.format_percent,
    "seconds": wording.format_seconds,
    "mebibytes": wording.format_mebibytes,
    "value": wording.format_value,
    "shorten": wording.shorten_label,
    "name_side": name_side,
}


def render_page(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The whole HTML page."""
    environment = open_templates()
    sources = (environment.get_template(name).render() for name in ("page.css", "page.js"))
    page = environment.get_template("page.html")
    return page.render(summary=summary, facts=facts, policy=write_policy(*sources))


def write_policy(style: str, script: str) -> str:
    """The Content-Security-Policy: the page's own style and script run, and nothing loads.

    A hostile label stays harmless even where escaping should fail.
    """
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{digest_source(style)}'; script-src '{digest_source(script)}'"
    )


@functools.cache
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
        "fit_score_axis": fit_score_axis,
        "embeddings": TITLES,
        "lay_out_heatmap": lay_out_heatmap,
        "draw_scatter": draw_scatter,
        "noun": wording.format_noun,
        "rank_groups": rank_groups,
        "perturbation_methods": METHODS,
        "square_counts": square_counts,
        "trace_deletion": trace_deletion,
        "square_importances": square_importances,
    }
    return environment


def digest_source(source: str) -> str:
    """Digest of an inline style or script as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
