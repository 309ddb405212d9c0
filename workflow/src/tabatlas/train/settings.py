"""Knobs that every training has, and those of a covariate."""

from typing import Literal

from pydantic import Field

from tabatlas import names
from tabatlas.settings import StageSettings
from tabatlas.stream.prefetch import Reading


class CovariateSettings(StageSettings):
    """A column of the cells that a network knows beside the genes."""

    column: Literal[names.COVARIATES] = Field(description="Column of the cells.")
    role: Literal["input", "condition"] = Field(
        alias="as",
        description="`input`: the masks select it like a gene; `condition`: every step sees it.",
    )
    width: int = Field(
        4, ge=1, le=256, description="Width of the embedding of a categorical column."
    )


class TrainingSettings(StageSettings):
    """How a network is trained."""

    seed: int = Field(0, ge=0, description="Seed of weights, order of cells and hidden genes.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; `cuda` without a GPU is an error."
    )
    threads: int = Field(
        2, ge=1, le=256, description="CPU threads of torch; part of a run's identity to the bit."
    )
    epochs: int = Field(30, ge=0, description="Passes over the training cells; 0 trains nothing.")
    patience: int = Field(
        10, ge=1, description="Epochs without a better validation loss before the training ends."
    )
    validation_cells: int = Field(
        20_000, ge=1, description="Validation cells that each epoch looks at, at most."
    )
    batch_size: int = Field(128, ge=2, description="Cells per minibatch.")
    micro_batches: int = Field(
        1,
        ge=1,
        le=4096,
        description="Equal parts of a minibatch that are calculated one after the other, or by as "
        "many processes as divide their number. Batch normalization sees one at a time.",
    )
    reduction: Literal["auto", "ordered", "allreduce"] = Field(
        "auto",
        description="How gradients of micro-batches are added: `ordered` gives the same bytes for "
        "any number of processes, `allreduce` is faster; auto: ordered on a CPU.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: matrix products of half the width; selection, statistics and losses "
        "stay float32.",
    )
    learning_rate: float = Field(
        5e-3, gt=0, le=1, description="Peak learning rate of AdamW (5e-3: Fischer et al. 2024)."
    )
    weight_decay: float = Field(
        0.05,
        ge=0,
        le=1,
        description="AdamW's decay of weight matrices; norms, biases and tokens have none.",
    )
    unknown_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of categorical covariates made unknown in training, so that a query "
        "from a new donor or library works.",
    )
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Share of all steps in which the learning rate rises."
    )
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Share that an average of the weights keeps per step; the average is what is "
        "validated and written (Polyak & Juditsky 1992). 0: the last weights.",
    )
    loader_threads: int = Field(
        1, ge=1, le=64, description="Threads that read ahead; one feeds 300,000 cells a second."
    )
    loader_bytes: int = Field(
        1 << 28,
        ge=1,
        description="Memory for minibatches that were read ahead; mapped pages apart.",
    )
    checkpoint_minutes: float = Field(
        5, gt=0, description="Time between checkpoints within an epoch; each epoch ends with one."
    )
    hang_minutes: float = Field(
        15,
        gt=0,
        le=10_080,
        description="Time without progress after which the process ends, resumably.",
    )

    def reading(self, device_type: str) -> Reading:
        """How the loader reads for a device: `cpu` or `cuda`."""
        return Reading(self.loader_threads, self.loader_bytes, pinned=device_type == "cuda")
