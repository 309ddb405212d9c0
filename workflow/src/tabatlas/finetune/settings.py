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
    max_repeats: float = Field(
        0,
        ge=0,
        le=1000,
        description="Draw all classes equally often, but a cell at most so many times in an epoch; "
        "0: every labelled cell once.",
    )
    ambient_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of ambient molecules that any droplet may hold when a cell is asked "
        "whether its counts speak for its type (Young & Behjati 2020: 2 to 50 %, often 10 %).",
    )
    low_share: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="Share of validation cells that are the least typical: a cell is unknown that "
        "is less than half as typical as all others, so nearer to the ambient (own choice).",
    )
    kept_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of validation cells that must keep their label when they are thinned "
        "to `min_counts` molecules; cells with fewer are of low quality. At half, a poorer cell's "
        "label is as likely as not that of its full depth (own choice).",
    )
    empty_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of empty droplets of `min_counts` molecules that may get a label: with "
        "fewer molecules nobody can tell them from cells (own choice).",
    )
