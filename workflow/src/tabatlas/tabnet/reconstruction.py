"""The loss of pretraining: how well hidden genes are predicted."""

from torch import Tensor

from tabatlas.tabnet.precision import at_least_float32


def masked_loss(
    predicted_ng: Tensor, target_ng: Tensor, scored_ng: Tensor, n_scored: Tensor | None = None
) -> Tensor:
    """Mean squared error over the entries where `scored_ng`: hidden and measured.

    Both matrices are standardized (`Decoder.standardize`); predicting 0, the gene's mean, scores
    that gene's variance. `n_scored` divides instead of the number of scored entries where this is
    one of several parts of a minibatch: the parts' losses then add up to the minibatch's.
    """
    error_ng = (at_least_float32(predicted_ng) - target_ng) * scored_ng
    total = scored_ng.sum() if n_scored is None else n_scored
    return (error_ng * error_ng).sum() / total.clamp_min(1)
