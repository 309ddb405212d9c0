"""Ghost batch normalization, all chunks of a minibatch at once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.precision import at_least_float32

EPSILON = 1e-5  # PyTorch's default, and pytorch-tabnet's


class GhostBatchNorm(nn.Module):
    """Batch normalization within chunks of the minibatch (Hoffer et al. 2017).

    A minibatch of n cells is cut in its order into ⌈n / virtual_batch_size⌉ chunks whose sizes
    differ by at most one cell, the larger first. The running statistics move once per minibatch,
    towards the mean of its chunks' statistics, as in the TensorFlow of TabNet's authors. A lone
    cell has no variance: it is normalized by the running statistics and does not move them.
    """

    def __init__(self, n_features: int, virtual_batch_size: int, momentum: float) -> None:
        super().__init__()
        self.virtual_batch_size = virtual_batch_size
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_var", torch.ones(n_features))

    def forward(self, x_nf: Tensor) -> Tensor:
        """Normalized x; float32 even where x is of half precision."""
        x_nf = at_least_float32(x_nf)
        if not self.training or len(x_nf) == 1:
            running = (self.running_mean, self.running_var)
            return F.batch_norm(x_nf, *running, self.weight, self.bias, eps=EPSILON)
        normalized_nf, mean_kf, var_kf = self.normalize_minibatch(x_nf)
        self.running_mean.lerp_(mean_kf.mean(0), self.momentum)
        self.running_var.lerp_(var_kf.mean(0), self.momentum)
        return normalized_nf

    def normalize_minibatch(self, x_nf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized x, and the mean and unbiased variance of each of its k chunks."""
        n_chunks = math.ceil(len(x_nf) / self.virtual_batch_size)
        size, n_larger = divmod(len(x_nf), n_chunks)
        if n_larger == 0:
            return self.normalize_chunks(x_nf, n_chunks)
        border = n_larger * (size + 1)
        larger = self.normalize_chunks(x_nf[:border], n_larger)
        smaller = self.normalize_chunks(x_nf[border:], n_chunks - n_larger)
        normalized_nf, mean_kf, var_kf = map(torch.cat, zip(larger, smaller, strict=True))
        return normalized_nf, mean_kf, var_kf

    def normalize_chunks(self, x_nf: Tensor, n_chunks: int) -> tuple[Tensor, Tensor, Tensor]:
        """`normalize_minibatch` for chunks of equal size."""
        n_features = x_nf.shape[1]
        # Side by side as columns, all chunks go through one fused kernel.
        columns = x_nf.view(n_chunks, -1, n_features).transpose(0, 1).flatten(1)
        mean, var = columns.new_zeros(2, n_chunks * n_features).unbind()
        affine = (self.weight.repeat(n_chunks), self.bias.repeat(n_chunks))
        # With momentum 1 the running statistics come back as this minibatch's own.
        columns = F.batch_norm(columns, mean, var, *affine, True, 1.0, EPSILON)
        normalized_nf = columns.unflatten(1, (n_chunks, -1)).transpose(0, 1).reshape(x_nf.shape)
        return normalized_nf, mean.view(n_chunks, -1), var.view(n_chunks, -1)
