"""The demo atlas as `snakemake --cores all` leaves it, for the tests that guard its scores."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "results" / "demo"
NEEDS_DEMO = pytest.mark.skipif(
    not (DEMO / "report" / "index.html").is_file(),
    reason="the demo atlas is not built: `snakemake --cores all`",
)
