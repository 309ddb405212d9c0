"""The classifier: the encoder and one linear head."""

from torch import Tensor, nn

from tabatlas.tabnet.encoder import Encoder, Encoding
from tabatlas.tabnet.layers import build_output


class Classifier(nn.Module):
    """TabNet for classes: a linear map of the steps' summed decision.

    The head starts at zero, every class equally likely.
    """

    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = build_output(encoder.architecture.n_d, n_classes)

    def forward(
        self, x_ng: Tensor, hidden_ng: Tensor | None = None, return_masks: bool = False
    ) -> tuple[Tensor, Encoding]:
        """Logits [n, c], and the encoding for the loss's entropy and for explanations."""
        encoding = self.encoder(x_ng, hidden_ng, return_masks)
        return self.head(encoding.embedding_nd), encoding
