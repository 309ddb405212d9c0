"""Settings of `perturb`: screens outside the atlas, and how effects are predicted and scored."""

from typing import Literal

from pydantic import Field, field_validator

from tabatlas.fetch.settings import PLAIN_NAME, Column, DatasetRow
from tabatlas.settings import StageSettings


class ScreenRow(StageSettings):
    """A screen outside the atlas. Its cells train nothing of the encoder."""

    dataset_id: str = Field(pattern=PLAIN_NAME, description="Plain name of the screen.")
    path: str = Field(min_length=1, description="Path or http(s) URL of the h5ad.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Digest that the file must have."
    )
    organism: Literal["Homo sapiens", "Mus musculus"] = Field(
        "Homo sapiens", description="Species, which decides the gene table."
    )
    values: str | None = Field(
        None,
        description="Place of the expression: `X`, `raw/X` or a layer, raw counts or "
        "log1p(CP10k). Default: the counts if there are any, else `X`.",
    )
    gene_id: str | None = Field(
        None, description="Column of var with gene ids or symbols, or `index`. Default: best one."
    )
    perturbation: str = Field(
        "genetic_perturbation_id",
        min_length=1,
        description="Column of the perturbed genes; control labels are those of `fetch`.",
    )
    strategy: Column = Field(
        None,
        description="Column or constant of the strategy, such as CRISPRa or `CRISPR interference "
        "screen`. Default: `genetic_perturbation_strategy` if there.",
    )
    cell_line: Column = Field(
        None, description="Column or constant of the cell line. Default: one line, the screen's."
    )

    @field_validator("path")
    @classmethod
    def refuse_other_schemes(cls, value: str) -> str:
        """As for a dataset, but nothing is simulated."""
        if value.startswith("simulate:"):
            raise ValueError("a simulated screen belongs into `datasets`")
        return DatasetRow.refuse_other_schemes(value)

    @property
    def is_remote(self) -> bool:
        """Whether the file has to be downloaded."""
        return self.to_dataset().is_remote

    def to_dataset(self) -> DatasetRow:
        """The row as the functions of `fetch` take it."""
        return DatasetRow(
            dataset_id=self.dataset_id,
            path=self.path,
            sha256=self.sha256,
            organism=self.organism,
            gene_id=self.gene_id,
            perturbation=self.perturbation,
        )


class PerturbSettings(StageSettings):
    """How perturbation effects are predicted and scored."""

    seed: int = Field(0, ge=0, description="Seed of halves, hidden genes, draws and intervals.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the encoder runs; `cuda` without a GPU is an error."
    )
    threads: int = Field(
        2, ge=1, le=256, description="CPU threads of torch; part of a run's identity to the bit."
    )
    datasets: tuple[ScreenRow, ...] = Field(
        (),
        description="Screens outside the atlas, raw counts or log1p(CP10k): rows of `dataset_id`, "
        "`path`, and what their columns are called.",
    )
    min_cells: int = Field(
        20,
        ge=4,
        description="Cells that a perturbation, and the control, needs (own choice); smaller ones "
        "are left out and counted.",
    )
    hidden_ratio: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Zero-shot: share of the other genes hidden, as in pretraining.",
    )
    n_masks: int = Field(4, ge=1, description="Zero-shot: random masks over which is averaged.")
    n_control_cells: int = Field(
        64, ge=1, description="Zero-shot: control cells that are perturbed in the network, at most."
    )
    activation_quantile: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Zero-shot: an activated gene gets this quantile of the training cells that "
        "express it: high, but seen.",
    )
    n_random: int = Field(
        10, ge=2, description="Draws of random gene embeddings, a yardstick of the pretrained ones."
    )
    n_sample_cells: int = Field(
        2000,
        ge=50,
        description="Training cells for the gene embeddings by PCA and for activation, at most.",
    )
    n_components: int = Field(
        10, ge=1, description="Linear model: principal components (Ahlmann-Eltze et al. 2025)."
    )
    linear_ridge: float = Field(
        0.1, gt=0, description="Linear model: ridge penalty (Ahlmann-Eltze et al. 2025)."
    )

    @field_validator("datasets")
    @classmethod
    def refuse_repeated_names(cls, value: tuple[ScreenRow, ...]) -> tuple[ScreenRow, ...]:
        """Each screen names files of its own, on any file system."""
        names = [row.dataset_id.lower() for row in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"`{name}` names two screens; give each its own `dataset_id`")
        return value

    def find_row(self, name: str) -> ScreenRow | None:
        """The row of a screen."""
        return next((row for row in self.datasets if row.dataset_id == name), None)
