"""The dense yardstick of tabnet.py: TabNet as a careful engineer writes it in plain torch.

Every step holds [cells, genes] tensors, selects with PyPI `entmax`'s sort, and normalizes all ghost
chunks at once. It imports nothing of the package and is frozen: improving the package must not move
what it is measured against. Its parameters bear the package's names, so that one state serves both.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from entmax import entmax15, sparsemax
from torch import Tensor, nn

EPSILON = 1e-5


class Shape(NamedTuple):
    """What the network's form depends on, besides its genes."""

    n_d: int
    n_a: int
    n_steps: int
    gamma: float
    n_shared: int
    n_independent: int
    virtual_batch_size: int
    momentum: float
    mask_type: str
    scale_floor: float

    @classmethod
    def of(cls, architecture: Any) -> "Shape":
        """The same form as an object with fields of the same names."""
        return cls(*(getattr(architecture, name) for name in cls._fields))


class GhostBatchNorm(nn.Module):
    """Batch normalization within equal chunks of the minibatch, all of them in one fused kernel.

    Of four ways this is the fastest on two cores at 1,024 × 19,331 (forward and backward, CPU s):
    chunks as columns 0.36, a loop over chunks 0.52, instance_norm 0.62, var_mean and addcmul 0.75.
    """

    def __init__(self, n_features: int, shape: Shape) -> None:
        super().__init__()
        self.virtual_batch_size, self.momentum = shape.virtual_batch_size, shape.momentum
        self.weight = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_var", torch.ones(n_features))

    def forward(self, x_nf: Tensor) -> Tensor:
        """Normalized x."""
        if not self.training:
            running = (self.running_mean, self.running_var)
            return F.batch_norm(x_nf, *running, self.weight, self.bias, eps=EPSILON)
        n_chunks, n_features = math.ceil(len(x_nf) / self.virtual_batch_size), x_nf.shape[1]
        columns = x_nf.view(n_chunks, -1, n_features).transpose(0, 1).flatten(1)
        mean, var = columns.new_zeros(2, n_chunks * n_features).unbind()
        affine = (self.weight.repeat(n_chunks), self.bias.repeat(n_chunks))
        columns = F.batch_norm(columns, mean, var, *affine, True, 1.0, EPSILON)
        with torch.no_grad():
            self.running_mean.lerp_(mean.view(n_chunks, -1).mean(0), self.momentum)
            self.running_var.lerp_(var.view(n_chunks, -1).mean(0), self.momentum)
        return columns.unflatten(1, (n_chunks, -1)).transpose(0, 1).reshape(x_nf.shape)


class FeatureTransformer(nn.Module):
    """GLU layers shared by all steps, then layers of one step."""

    def __init__(self, width: int, n_shared: int, n_independent: int, shape: Shape) -> None:
        super().__init__()
        self.independent = make_glu_linears(width, width, n_independent)
        n_layers = n_shared + n_independent
        self.norms = nn.ModuleList(GhostBatchNorm(2 * width, shape) for _ in range(n_layers))

    def forward(self, x: Tensor, shared: Iterable[nn.Linear]) -> Tensor:
        """Features [n, width]."""
        layers = zip([*shared, *self.independent], self.norms, strict=True)
        for depth, (linear, norm) in enumerate(layers):
            gated = F.glu(norm(linear(x)))
            x = gated if depth == 0 else (x + gated) * math.sqrt(0.5)
        return x


class AttentiveTransformer(nn.Module):
    """Mask logits, of which entmax or sparsemax selects."""

    def __init__(self, n_genes: int, shape: Shape) -> None:
        super().__init__()
        self.linear = nn.Linear(shape.n_a, n_genes, bias=False)
        self.norm = GhostBatchNorm(n_genes, shape)
        self.project = sparsemax if shape.mask_type == "sparsemax" else entmax15

    def forward(
        self, attention_na: Tensor, prior_ng: Tensor | None, hidden_ng: Tensor | None
    ) -> Tensor:
        """Mask [n, g]; without a prior, as in the first step, nothing is multiplied by one."""
        logits_ng = self.norm(self.linear(attention_na))
        if prior_ng is not None:
            logits_ng = logits_ng * prior_ng
        if hidden_ng is not None:
            logits_ng = logits_ng.masked_fill(hidden_ng, -math.inf)
        return self.project(logits_ng)


class DeviationScaling(nn.Module):
    """(x - mean) / max(sd, floor) with a learned gain and bias: one multiplication and addition."""

    def __init__(self, mean_g: Tensor, sd_g: Tensor, floor: float) -> None:
        super().__init__()
        self.standardize = Standardizer(mean_g, sd_g, floor)
        self.weight = nn.Parameter(torch.ones(len(mean_g)))
        self.bias = nn.Parameter(torch.zeros(len(mean_g)))

    def forward(self, x_ng: Tensor) -> Tensor:
        """x̂."""
        scale_g = self.weight / self.standardize.deviation_g
        return torch.addcmul(self.bias - self.standardize.mean_g * scale_g, x_ng, scale_g)


class Standardizer(nn.Module):
    """(x - mean) / max(sd, floor), what the decoder predicts."""

    def __init__(self, mean_g: Tensor, sd_g: Tensor, floor: float) -> None:
        super().__init__()
        self.register_buffer("mean_g", mean_g)
        self.register_buffer("deviation_g", sd_g.clamp_min(floor))

    def forward(self, x_ng: Tensor) -> Tensor:
        """Standardized x, in one pass."""
        return torch.addcmul(-self.mean_g / self.deviation_g, x_ng, 1 / self.deviation_g)


class Encoder(nn.Module):
    """TabNet's encoder over dense cells."""

    def __init__(self, shape: Shape, mean_g: Tensor, sd_g: Tensor) -> None:
        super().__init__()
        self.shape, n_genes, width = shape, len(mean_g), shape.n_d + shape.n_a
        own = (shape.n_shared, shape.n_independent, shape)
        self.scale = DeviationScaling(mean_g, sd_g, shape.scale_floor)
        self.token_g = nn.Parameter(torch.zeros(n_genes))
        self.shared = make_glu_linears(n_genes, width, shape.n_shared)
        self.splitter = FeatureTransformer(width, *own)
        steps = range(shape.n_steps)
        self.attentive = nn.ModuleList(AttentiveTransformer(n_genes, shape) for _ in steps)
        self.feature = nn.ModuleList(FeatureTransformer(width, *own) for _ in steps)

    def forward(
        self, x_ng: Tensor, hidden_ng: Tensor | None = None, with_entropy: bool = True
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """Decision [n, d] of each step, the masks' mean entropy, and the masks [n, g]."""
        input_ng = self.scale(x_ng)
        if hidden_ng is not None:
            input_ng = torch.where(hidden_ng, self.token_g, input_ng)
        attention_na = self.splitter(input_ng, self.shared)[:, self.shape.n_d :]
        decisions, entropies, masks, prior_ng = [], [], [], None
        for number, (attend, transform) in enumerate(
            zip(self.attentive, self.feature, strict=True)
        ):
            mask_ng = attend(attention_na, prior_ng, hidden_ng)
            features = transform(mask_ng * input_ng, self.shared)
            decisions.append(F.relu(features[:, : self.shape.n_d]))
            attention_na = features[:, self.shape.n_d :]
            if number + 1 < self.shape.n_steps:
                left_ng = self.shape.gamma - mask_ng
                prior_ng = left_ng if prior_ng is None else prior_ng * left_ng
            if with_entropy:
                entropies.append(measure_entropy(mask_ng))
            masks.append(mask_ng.detach())
        return decisions, torch.stack(entropies).mean() if with_entropy else None, masks


class Classifier(nn.Module):
    """The encoder and a linear head."""

    def __init__(self, shape: Shape, mean_g: Tensor, sd_g: Tensor, n_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(shape, mean_g, sd_g)
        self.head = nn.Linear(shape.n_d, n_classes, bias=False)

    def forward(self, x_ng: Tensor, with_entropy: bool = True) -> tuple[Tensor, Tensor | None]:
        """Logits [n, c], and the masks' entropy."""
        decisions, entropy, _ = self.encoder(x_ng, with_entropy=with_entropy)
        return self.head(sum(decisions)), entropy


class Decoder(nn.Module):
    """A feature transformer per step, summed, then every gene's standardized value."""

    def __init__(self, shape: Shape, mean_g: Tensor, sd_g: Tensor) -> None:
        super().__init__()
        self.standardize = Standardizer(mean_g, sd_g, shape.scale_floor)
        self.shared = make_glu_linears(shape.n_d, shape.n_d, 1)
        steps = range(shape.n_steps)
        self.feature = nn.ModuleList(FeatureTransformer(shape.n_d, 1, 1, shape) for _ in steps)
        self.genes = nn.Linear(shape.n_d, len(mean_g))

    def forward(self, decisions: list[Tensor]) -> Tensor:
        """Standardized values [n, g]."""
        steps = zip(self.feature, decisions, strict=True)
        return self.genes(sum(transform(decision, self.shared) for transform, decision in steps))


class Pretrainer(nn.Module):
    """Hide genes, predict them."""

    def __init__(self, shape: Shape, mean_g: Tensor, sd_g: Tensor) -> None:
        super().__init__()
        self.encoder = Encoder(shape, mean_g, sd_g)
        self.decoder = Decoder(shape, mean_g, sd_g)

    def forward(self, x_ng: Tensor, hidden_ng: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error over hidden entries, and the masks' entropy."""
        decisions, entropy, _ = self.encoder(x_ng, hidden_ng)
        error_ng = (self.decoder(decisions) - self.decoder.standardize(x_ng)) * hidden_ng
        return (error_ng * error_ng).sum() / hidden_ng.sum(), entropy


def make_glu_linears(n_inputs: int, width: int, n_layers: int) -> nn.ModuleList:
    """The linear maps of consecutive GLU layers."""
    sizes = [n_inputs, *[width] * (n_layers - 1)][:n_layers]
    return nn.ModuleList(nn.Linear(size, 2 * width, bias=False) for size in sizes)


def measure_entropy(mask_ng: Tensor) -> Tensor:
    """Mean over cells of -Σ M log M."""
    tiny = torch.finfo(mask_ng.dtype).tiny
    return -(mask_ng * (mask_ng + tiny).log()).sum(-1).mean()


def densify(indptr: Tensor, gene: Tensor, value: Tensor, n_genes: int) -> Tensor:
    """CSR rows scattered into zeros [n, g]."""
    row = torch.repeat_interleave(indptr.diff())
    x_ng = value.new_zeros(len(indptr) - 1, n_genes)
    x_ng.view(-1)[row * n_genes + gene] = value
    return x_ng


def hide_genes(n_cells: int, n_genes: int, generator: torch.Generator) -> Tensor:
    """A fair coin for every gene of every cell [n, g]."""
    return torch.rand(n_cells, n_genes, generator=generator) < 0.5
