"""The classifier: the encoder and one linear head."""

import torch
from torch import Tensor, nn

from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.encoder import Encoder, Encoding
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.layers import draw_linear
from tabatlas.tabnet.sparse import encode


class Classifier(nn.Module):
    """TabNet for classes: a linear map of the steps' summed decision."""

    def __init__(self, encoder: Encoder, n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        # Not zero: behind a head of zeros the encoder has no gradient at first, and 125 steps on
        # 1,400 cells of Kang et al. 2018 ended at a macro-F1 of 0.66 instead of 0.84.
        self.head = draw_linear(encoder.architecture.n_d, n_classes, generator)

    def forward(
        self,
        x_ng: Tensor,
        hidden_ng: Tensor | None = None,
        covariates: Covariates | None = None,
        return_masks: bool = False,
    ) -> tuple[Tensor, Encoding]:
        """Logits [n, c], and the encoding for the loss's entropy and for explanations."""
        encoding = self.encoder(x_ng, hidden_ng, covariates, return_masks)
        return self.head(encoding.embedding_nd), encoding

    def classify(
        self,
        x: Entries,
        hidden: GeneSets | None = None,
        covariates: Covariates | None = None,
    ) -> tuple[Tensor, Encoding]:
        """`forward` by the sparse form."""
        encoding = encode(self.encoder, x, hidden, covariates)
        return self.head(encoding.embedding_nd), encoding
