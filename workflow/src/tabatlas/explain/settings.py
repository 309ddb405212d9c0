"""Settings of `explain`."""

from pydantic import Field

from tabatlas.fetch.settings import SIMULATED
from tabatlas.settings import StageSettings


class ExplainSettings(StageSettings):
    """How masks are sampled, and when they are believed. Training is that of `finetune`."""

    seed: int = Field(0, ge=0, description="Seed of sampled cells and random genes.")
    replicates: int = Field(
        2,
        ge=1,
        le=20,
        description="Classifiers trained again with other seeds, besides the one of `finetune`.",
    )
    cells_per_type: int = Field(
        100, ge=1, description="Labeled test cells explained per cell type, at most."
    )
    n_top: int = Field(20, ge=1, description="Genes of a type that are compared between seeds.")
    min_stability: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Least mean Jaccard index of a type's top genes over pairs of seeds; below it "
        "the type is listed as not stable and not drawn. Own choice: 0.1 is 4 of 20 genes shared, "
        "0.33 half of them. Of the other types only genes that every seed names are drawn.",
    )
    markers: str | None = Field(
        None,
        min_length=1,
        description="Known markers: a TSV with columns `cell_type` (Cell Ontology id or label) and "
        "`gene` (Ensembl id or symbol), or `simulate:NAME` of the demo atlas; null: none.",
    )
    min_markers: int = Field(
        5, ge=1, description="Markers among its measured genes that a type needs to be scored."
    )
    matched_draws: int = Field(
        200, ge=20, le=10_000, description="Random gene sets that known markers are held against."
    )
    deletion_draws: int = Field(
        5, ge=1, le=100, description="Random gene sets hidden as the deletion test's control."
    )
    heatmap_genes: int = Field(
        5, ge=1, le=50, description="Stable genes of each type that the report draws, at most."
    )

    @property
    def simulated(self) -> str | None:
        """Name of the demo dataset whose markers are meant, or None."""
        named = self.markers or ""
        return named.removeprefix(SIMULATED) if named.startswith(SIMULATED) else None
