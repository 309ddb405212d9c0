"""Settings of `integrate`."""

from typing import Literal

from pydantic import Field

from tabatlas import names
from tabatlas.train.settings import TrainingSettings


class IntegrateSettings(TrainingSettings):
    """How cells of different libraries, assays and diseases are brought together."""

    epochs: int = Field(100, ge=0, description="Passes over the training cells.")
    patience: int = Field(
        30, ge=1, description="Epochs without a better validation loss before the training ends."
    )
    conditions: tuple[Literal[names.CATEGORICAL], ...] = Field(
        (names.BATCH, names.ASSAY, names.DISEASE),
        description="Columns that the decoder is told, so that the embedding need not hold them. "
        "One that never varies is left out.",
    )
    condition_width: int = Field(
        8, ge=1, le=256, description="Width of the embedding of a condition."
    )
    n_latent: int = Field(
        10, ge=2, le=512, description="Dimensions of the embedding (Lopez et al. 2018, scVI: 10)."
    )
    decoder_width: int = Field(
        128, ge=8, description="Width of the decoder's hidden layer (Lopez et al. 2018, scVI: 128)."
    )
    kl_weight: float = Field(
        6.0,
        ge=0,
        description="Weight of the distance between a cell's Gaussian and the standard one; "
        "larger mixes more (1 is the bound of Lopez et al. 2018; 6: own choice, see the log).",
    )
    hidden_ratio: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Share of genes hidden from the encoder per cell in training: an embedding "
        "that does without some genes does with those of another assay (own choice, see the log).",
    )
    score_cells: int = Field(
        50_000, ge=100, description="Labeled cells on which the methods are compared, at most."
    )
    obsm: str | None = Field(
        None,
        pattern=r"^X_[A-Za-z0-9_]{1,60}$",
        description="Also write the embedding into the experiment under this name of `obsm`, such "
        "as X_tabatlas.",
    )
