"""Simulate one dataset of the demo atlas."""

import logging
from pathlib import Path
from typing import Annotated

from tabatlas.counts import write_h5ad
from tabatlas.provenance import write_text
from tabatlas.simulate.dataset import simulate_dataset
from tabatlas.simulate.design import find_design
from tabatlas.simulate.files import build_source, build_truth, list_markers
from tabatlas.simulate.settings import SimulateSettings

logger = logging.getLogger(__name__)


def run(
    dataset: Annotated[str, "demo_a, demo_b, demo_c or demo_screen"],
    settings: Annotated[Path, "settings/simulate.json"],
    cells: Annotated[Path, "h5ad to write, as a user's file would be"],
    truth: Annotated[Path, "h5ad to write: what made the counts"],
    markers: Annotated[Path, "TSV to write: the genes that the cell types' programs raise"],
) -> None:
    """Simulate one dataset of the demo atlas, and write its truth beside it."""
    chosen, design = SimulateSettings.read(settings), find_design(dataset)
    simulated = simulate_dataset(design, chosen)
    source = build_source(simulated, chosen.seed)
    write_h5ad(source, cells)
    write_h5ad(build_truth(simulated, source), truth)
    write_text(list_markers(simulated).to_csv(sep="\t", index=False), markers)
    logger.info("%s: %d cells, %d genes", dataset, source.n_obs, source.n_vars)
