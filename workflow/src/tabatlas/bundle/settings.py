"""Settings of `bundle`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class BundleSettings(StageSettings):
    """Name and version of the model."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Plain name of the model. Default: the atlas's.",
    )
    version: str = Field(
        "0.1.0",
        pattern=r"^\d+\.\d+\.\d+$",
        description="Semantic version; a digest of the content is appended.",
    )
    license: str = Field("unspecified", min_length=1, description="Licence of the model.")
    intended_use: str = Field(
        "Research use: annotation of cells that resemble those it was trained on.",
        min_length=1,
        description="What the model card says about its use.",
    )
