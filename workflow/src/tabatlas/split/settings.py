"""Settings of `split`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class SplitSettings(StageSettings):
    """How cells are divided. Donors are (collection, donor) and stay whole."""

    seed: int = Field(0, ge=0, description="Seed of every draw of the split.")
    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of cells for the test, as near as whole donors allow."
    )
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share of cells for early stopping and calibration."
    )
    held_out_datasets: tuple[str, ...] = Field(
        (), description="Datasets that are the test; then no donor is drawn for it."
    )
    same_people: tuple[tuple[str, ...], ...] = Field(
        (), description="Groups of datasets that share donors and therefore stay together."
    )
    perturbation_folds: int = Field(
        5,
        ge=2,
        le=20,
        description="Folds of single perturbations; the cells of fold 0 train nothing, and all "
        "combinations are in it.",
    )
