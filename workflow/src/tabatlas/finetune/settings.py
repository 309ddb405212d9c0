"""Settings of `finetune`."""

from pydantic import Field

from tabatlas.train.settings import TrainingSettings


class FinetuneSettings(TrainingSettings):
    """How the classifier is trained from the encoder."""

    epochs: int = Field(15, ge=0, description="Passes over the labelled training cells.")
    batch_size: int = Field(64, ge=2, description="Cells per minibatch.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    hidden_ratio: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of genes hidden per cell in training, as in pretraining: regularises, "
        "and prepares for queries that did not measure every gene.",
    )
    lambda_sparse: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="Weight of the masks' entropy in the loss (Arik & Pfister 2021).",
    )
    min_class_cells: int = Field(
        5, ge=1, description="Training cells that a class needs; smaller ones are left out."
    )
