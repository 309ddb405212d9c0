"""The task of pretraining: predict the genes that were hidden, never those nobody measured."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.reconstruction import masked_loss
from tabatlas.train.device import seed_generator
from tabatlas.train.predict import draw_hidden, forget_levels, open_inputs

# Apart from every training step's key, which is (seed, step).
VALIDATION_KEY = 1 << 40


@dataclass
class Validation:
    """The cells of the validation part and how they are read."""

    source: PackedSource
    rows: np.ndarray
    batch_size: int
    seed: int


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

    def loss(self, minibatch: Minibatch, generator: torch.Generator) -> Tensor:
        """Masked loss and the weighted entropy of the masks."""
        x_ng, missing_ng, covariates = open_inputs(minibatch, self.presence_mg)
        drawn_ng = draw_hidden(missing_ng, self.pretraining_ratio, generator)
        covariates = forget_levels(covariates, self.unknown_ratio, generator)
        hidden_ng = drawn_ng | missing_ng
        predicted_ng, target_ng, entropy = self.reconstruct(x_ng, hidden_ng, covariates)
        return masked_loss(predicted_ng, target_ng, drawn_ng) + self.lambda_sparse * entropy

    def reconstruct(
        self, x_ng: Tensor, hidden_ng: Tensor, covariates: Covariates
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and true standardised values (n, g), and the entropy of the masks."""
        encoding = self.model["encoder"](x_ng, hidden_ng, covariates)
        decoder = self.model["decoder"]
        return decoder(encoding.decision_snd), decoder.standardize(x_ng), encoding.entropy

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Masked loss on fixed hidden genes, beside that of predicting each gene's mean."""
        model_total, mean_total, n_scored = 0.0, 0.0, 0
        asked = self.validation
        device = self.presence_mg.device
        for number, minibatch in enumerate(asked.source.iterate(asked.rows, asked.batch_size)):
            x_ng, missing_ng, covariates = open_inputs(minibatch.to(device), self.presence_mg)
            generator = seed_generator(device, asked.seed, VALIDATION_KEY, number)
            drawn_ng = draw_hidden(missing_ng, self.pretraining_ratio, generator)
            hidden_ng = drawn_ng | missing_ng
            predicted_ng, target_ng, _ = self.reconstruct(x_ng, hidden_ng, covariates)
            n_drawn = int(drawn_ng.sum())
            model_total += masked_loss(predicted_ng, target_ng, drawn_ng).item() * n_drawn
            # 0 is the gene's mean over the training cells.
            at_mean_ng = torch.zeros_like(target_ng)
            mean_total += masked_loss(at_mean_ng, target_ng, drawn_ng).item() * n_drawn
            n_scored += n_drawn
        return {
            "validation_loss": model_total / n_scored,
            "gene_mean_loss": mean_total / n_scored,
        }
