"""Settings of `pack`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class PackSettings(StageSettings):
    """Which genes are trained on, and how the cache is stored."""

    seed: int = Field(0, ge=0, description="Seed of the stored order of the cells.")
    genes: str = Field(
        "all",
        min_length=1,
        description="Training genes: `all` measured ones, `hvg`, or the path of a gene list.",
    )
    n_hvg: int = Field(
        2000,
        ge=1,
        description="Highly variable genes that `genes: hvg` takes (scanpy, seurat).",
    )
    shard_cells: int = Field(
        16_384, ge=1, description="Cells per shard: what is shuffled and written at once."
    )
