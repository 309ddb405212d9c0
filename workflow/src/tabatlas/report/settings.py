"""Settings of `report`: the title, and when a dataset deserves a warning."""

from pydantic import Field

from tabatlas.settings import StageSettings


class ReportSettings(StageSettings):
    """What the page is called and which losses it points at."""

    title: str = Field(
        "", max_length=200, description="Title of the page; empty: the name of the bundle."
    )
    warn_kept_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Warn of samples of which QC kept a smaller share of the cells (own choice).",
    )
    warn_mapped_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Warn of datasets of whose genes a smaller share has a known Ensembl id "
        "(own choice).",
    )
    warn_lost_counts_above: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Warn of datasets that lost a larger share of their counts with the genes "
        "outside the atlas's list (own choice).",
    )
