"""Ghost batch normalization, all chunks of a minibatch at once."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabatlas.tabnet.precision import at_least_float32

EPSILON = 1e-5  # PyTorch's default, and pytorch-tabnet's


class Folded(NamedTuple):
    """A normalized linear map: (x · w_f) · scale_cf + shift_cf in each chunk c of cells."""

    x_nk: Tensor  # centered within its chunk, in training
    scale_cf: Tensor
    shift_cf: Tensor
    sizes: list[int]  # cells of each chunk


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

    def fold(self, x_nk: Tensor, weight_fk: Tensor) -> "Folded":
        """What `forward` does to x (n, k) · wᵀ, without that product of n × f being made.

        The variance of a feature is w_f · C · w_f with the covariance C of the chunk's x. Moves the
        running statistics as `forward` does.
        """
        if not self.training or len(x_nk) == 1:
            scale_f = self.weight * torch.rsqrt(self.running_var + EPSILON)
            shift_f = torch.addcmul(self.bias, self.running_mean, scale_f, value=-1)
            return Folded(x_nk, scale_f[None], shift_f[None], [len(x_nk)])
        sizes = cut_chunks(len(x_nk), self.virtual_batch_size)
        parts = x_nk.split(sizes)
        mean_ck = torch.stack([part.mean(0) for part in parts])
        centered = [part - mean_k for part, mean_k in zip(parts, mean_ck, strict=True)]
        var_cf = torch.stack([measure_variance(part, weight_fk) for part in centered])
        with torch.no_grad():
            pairs = zip(var_cf, sizes, strict=True)
            unbiased_cf = torch.stack([var_f * (size / (size - 1)) for var_f, size in pairs])
            self.running_mean.lerp_(weight_fk @ mean_ck.mean(0), self.momentum)
            self.running_var.lerp_(unbiased_cf.mean(0), self.momentum)
        scale_cf = self.weight * torch.rsqrt(var_cf + EPSILON)
        return Folded(torch.cat(centered), scale_cf, self.bias.expand_as(scale_cf), sizes)

    def normalize_minibatch(self, x_nf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized x, and the mean and unbiased variance of each of its k chunks."""
        sizes = cut_chunks(len(x_nf), self.virtual_batch_size)
        n_larger = sizes.count(sizes[0])
        if n_larger == len(sizes):
            return self.normalize_chunks(x_nf, n_larger)
        border = n_larger * sizes[0]
        larger = self.normalize_chunks(x_nf[:border], n_larger)
        smaller = self.normalize_chunks(x_nf[border:], len(sizes) - n_larger)
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


def cut_chunks(n_cells: int, most: int) -> list[int]:
    """Sizes of the chunks of a minibatch: as few as can be, as equal as can be, larger first."""
    n_chunks = math.ceil(n_cells / most)
    size, n_larger = divmod(n_cells, n_chunks)
    return [size + 1] * n_larger + [size] * (n_chunks - n_larger)


def measure_variance(x_nk: Tensor, weight_fk: Tensor) -> Tensor:
    """Biased variance (f,) over centered x of x · w_f."""
    covariance_kk = x_nk.t() @ x_nk / len(x_nk)
    # Never less than 0, but for rounding.
    return ((weight_fk @ covariance_kk) * weight_fk).sum(1).clamp_min(0)
