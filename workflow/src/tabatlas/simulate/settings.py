"""Settings of `simulate`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class SimulateSettings(StageSettings):
    """How large the demo atlas is, and its seed. What it holds is fixed in `design.py`."""

    seed: int = Field(0, ge=0, description="Seed of every draw.")
    n_cells: int = Field(
        6000, ge=300, le=1_000_000, description="Cells of the whole atlas, over its four datasets."
    )
    n_genes: int = Field(
        2000,
        ge=800,
        le=15_000,
        description="Protein-coding genes; about 500 are named in `markers.py`, the rest drawn.",
    )
