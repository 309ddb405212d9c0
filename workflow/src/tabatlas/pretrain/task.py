"""The task of pretraining: predict the genes that were hidden, never those nobody measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.reconstruction import sum_errors, sum_mean_errors
from tabatlas.tabnet.sparse import encode
from tabatlas.train.device import seed_generator
from tabatlas.train.predict import draw_hidden, forget_levels, open_inputs
from tabatlas.train.step import Attend

# In the place of a training step's epoch. Of one word: a longer number is as good as two of them.
VALIDATION_EPOCH = (1 << 32) - 1


@dataclass
class Validation:
    """The cells of the validation part and how they are read."""

    source: PackedSource
    rows: np.ndarray
    batch_size: int
    seed: int


class MaskedCells(NamedTuple):
    """Cells of which genes are hidden."""

    x: Entries
    hidden: GeneSets
    drawn: GeneSets  # hidden and to be predicted: not what is missing
    covariates: Covariates


class MaskedGenes:
    """Hide genes at random, predict them from the others."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        presence_mg: Tensor,
        validation: Validation,
        pretraining_ratio: float,
        unknown_ratio: float,
        lambda_sparse: float,
    ) -> None:
        self.model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.presence_mg, self.validation = presence_mg, validation
        self.pretraining_ratio, self.unknown_ratio = pretraining_ratio, unknown_ratio
        self.lambda_sparse = lambda_sparse

    def draw(self, minibatch: Minibatch, generator: torch.Generator) -> MaskedCells:
        """Hide genes and forget levels."""
        x, missing, covariates = open_inputs(minibatch, self.presence_mg)
        hidden, drawn = draw_hidden(missing, self.pretraining_ratio, generator)
        covariates = forget_levels(covariates, self.unknown_ratio, generator)
        return MaskedCells(x, hidden, drawn, covariates)

    def sizes(self, inputs: MaskedCells) -> tuple[int, int]:
        """Cells, and their genes that are to be predicted."""
        return inputs.x.n_rows, int(inputs.drawn.count())

    def loss(self, inputs: MaskedCells, totals: Sequence[int]) -> Tensor:
        """Masked loss and the weighted entropy of the masks: these cells' part of both means."""
        x, hidden, drawn, covariates = inputs
        n_cells, n_drawn = totals
        encoding = encode(self.model["encoder"], x, hidden, covariates)
        errors = sum_errors(self.model["decoder"], encoding.decision_snd, x, drawn)
        entropy = encoding.entropy * (x.n_rows / n_cells)
        return errors / max(1, n_drawn) + self.lambda_sparse * entropy

    @torch.inference_mode()
    def validate(self, attend: Attend = iter) -> dict[str, float]:
        """Masked loss on fixed hidden genes, beside that of predicting each gene's mean."""
        model_total, mean_total, n_scored = 0.0, 0.0, 0
        asked, decoder = self.validation, self.model["decoder"]
        device = self.presence_mg.device
        minibatches = attend(asked.source.iterate(asked.rows, asked.batch_size))
        for number, minibatch in enumerate(minibatches):
            x, missing, covariates = open_inputs(minibatch.to(device), self.presence_mg)
            generator = seed_generator(device, asked.seed, VALIDATION_EPOCH, number)
            hidden, drawn = draw_hidden(missing, self.pretraining_ratio, generator)
            encoding = encode(self.model["encoder"], x, hidden, covariates)
            model_total += sum_errors(decoder, encoding.decision_snd, x, drawn).item()
            mean_total += sum_mean_errors(decoder, x, drawn).item()
            n_scored += int(drawn.count())
        return {
            "validation_loss": model_total / n_scored,
            "gene_mean_loss": mean_total / n_scored,
        }
