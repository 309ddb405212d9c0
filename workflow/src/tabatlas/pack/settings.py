"""Settings of `pack`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class PackSettings(StageSettings):
    """Which genes are trained on, how the cache is stored, and how training shuffles it."""

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
    shard_cells: int = Field(16_384, ge=1, description="Cells per shard.")
    block_cells: int = Field(
        512,
        ge=1,
        description="Neighbors in stored order that training reads together; part of its order.",
    )
    buffer_cells: int = Field(
        16_384,
        ge=1,
        description="Cells of random blocks that training shuffles among each other; part of its "
        "order.",
    )
    memory_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Memory for counts while packing; more packs faster."
    )
