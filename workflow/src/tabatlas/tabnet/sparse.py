"""The encoder's sparse form: the same parameters and results without a tensor of cells × genes.

What `Encoder.forward` does with x̂ and a mask for every gene is done here with the genes that a cell
expresses and those that its masks select. With x̂ = s·x + c for a seen gene and its token t for a
hidden one, the first linear map W₁ of the input splits into the entries of x, and one row for each
set of hidden genes that occurs in the minibatch:

    x̂ W₁ = x (s ∘ W₁) + Σ_seen c W₁ + Σ_hidden t W₁
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.encoder import Encoder, Encoding
from tabatlas.tabnet.entries import Entries, GeneSets, drop_members, look_up, unite
from tabatlas.tabnet.layers import AttentiveTransformer
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.tabnet.products import multiply, multiply_dense, multiply_scaled
from tabatlas.tabnet.select import POWER, Field, project, select


class Input(NamedTuple):
    """The input of a minibatch, with which every step begins."""

    x: Entries  # of seen genes
    hidden: GeneSets
    gain_f: Tensor  # x̂ = gain · x + offset, of genes and then of columns
    offset_f: Tensor
    columns_nc: Tensor  # x̂ of covariates that are inputs
    condition_nc: Tensor


def encode(
    encoder: Encoder,
    x: Entries,
    hidden: GeneSets | None = None,
    covariates: Covariates | None = None,
) -> Encoding:
    """Encode log1p(CP10k) as `encoder(…)` does; `Encoding.masks` hold what each step selects."""
    opened = open_input(encoder, x, hidden, covariates)
    # Every use of W₁ hands it on to the next (see `products`).
    mapped, weight_fh = map_whole(encoder, opened, encoder.shared[0].weight.t().contiguous())
    _, attention_na = encoder.split(encoder.splitter.finish(mapped, encoder.shared))
    decisions, masks = [], []
    for attend, transform in zip(encoder.attentive, encoder.feature, strict=True):
        mask = attend_sparsely(encoder, attend, attention_na, masks, opened)
        masks.append(mask)
        mapped, weight_fh = map_selected(encoder, opened, mask, weight_fh)
        decision_nd, attention_na = encoder.split(transform.finish(mapped, encoder.shared))
        decisions.append(F.relu(decision_nd))
    entropy = torch.stack([measure_entropy(mask) for mask in masks]).mean()
    return Encoding(torch.stack(decisions), entropy, masks=tuple(masks))


def open_input(
    encoder: Encoder, x: Entries, hidden: GeneSets | None, covariates: Covariates | None
) -> Input:
    """Scale the input; nothing of a hidden gene is left but that it is hidden."""
    n_genes = len(encoder.token_g)
    if hidden is None:
        set_n = torch.zeros(x.n_rows, dtype=torch.int64, device=x.value.device)
        hidden = GeneSets(set_n, torch.zeros(1, n_genes, dtype=torch.bool, device=set_n.device))
    else:
        x = drop_members(x, hidden)
    if covariates is None:
        covariates = encoder.know_nothing(x.value.new_empty(x.n_rows, 0))
    columns_nc = encoder.inputs(covariates)
    gain_f, offset_f = encoder.scale.fold(x, hidden, columns_nc)
    scaled_nc = torch.addcmul(offset_f[n_genes:], columns_nc, gain_f[n_genes:])
    condition_nc = encoder.conditions(covariates)
    return Input(x, hidden, gain_f, offset_f, scaled_nc, condition_nc)


def map_whole(encoder: Encoder, opened: Input, weight_fh: Tensor) -> tuple[Tensor, Tensor]:
    """x̂ W₁ (n, 2h) of the whole input, and W₁."""
    n_genes, hidden = len(encoder.token_g), opened.hidden
    absent_mg = torch.where(hidden.member_mg, encoder.token_g, opened.offset_f[:n_genes])
    absent_mh, weight_fh = multiply_dense(absent_mg, weight_fh, 0)
    whole_nh, weight_fh = multiply_scaled(opened.x, opened.gain_f[:n_genes], weight_fh)
    whole_nh = whole_nh + absent_mh.index_select(0, hidden.set_n)
    return add_columns(whole_nh, opened, opened.columns_nc, weight_fh)


def map_selected(
    encoder: Encoder, opened: Input, mask: Entries, weight_fh: Tensor
) -> tuple[Tensor, Tensor]:
    """(M ∘ x̂) W₁ (n, 2h) from rows of W₁ only for genes that the mask selects, and W₁."""
    n_genes, place = len(encoder.token_g), mask.gene.long()
    gain, offset = (one.index_select(0, place) for one in (opened.gain_f, opened.offset_f))
    x = look_up(opened.x, mask.indptr, mask.gene)
    weighted = mask.value * torch.addcmul(offset, gain, x)
    columns_nc = opened.columns_nc
    if encoder.inputs.n_covariates:
        weighted = weighted.masked_fill(place >= n_genes, 0)
        mask_nq = spread_tail(mask, n_genes, encoder.inputs.n_covariates)
        columns_nc = columns_nc * encoder.inputs.spread_covariates(mask_nq)
    selected_nh, weight_fh = multiply(mask._replace(value=weighted), weight_fh)
    return add_columns(selected_nh, opened, columns_nc, weight_fh)


def add_columns(
    mapped_nh: Tensor, opened: Input, columns_nc: Tensor, weight_fh: Tensor
) -> tuple[Tensor, Tensor]:
    """With what covariates add to the first linear map, those of the input as given; and W₁."""
    dense_nc = torch.cat([columns_nc, opened.condition_nc], dim=1)
    if not dense_nc.shape[1]:
        return mapped_nh, weight_fh
    first = len(weight_fh) - dense_nc.shape[1]
    columns_nh, weight_fh = multiply_dense(dense_nc, weight_fh, first)
    return mapped_nh + columns_nh, weight_fh


def spread_tail(mask: Entries, n_genes: int, n_tail: int) -> Tensor:
    """The mask of what comes after the genes (n, tail), dense."""
    place = mask.rows() * n_tail + mask.gene - n_genes
    # What is a gene goes to one place more, and from there nowhere.
    nowhere = mask.n_rows * n_tail
    place = torch.where(mask.gene >= n_genes, place, nowhere)
    flat = mask.value.new_zeros(nowhere + 1).index_add(0, place, mask.value)
    return flat[:-1].view(mask.n_rows, n_tail)


def attend_sparsely(
    encoder: Encoder,
    attend: AttentiveTransformer,
    attention_na: Tensor,
    masks: list[Entries],
    opened: Input,
) -> Entries:
    """The mask of a step, given those of the steps before."""
    power, gamma = POWER[encoder.architecture.mask_type], encoder.architecture.gamma
    # Covariates can always be selected.
    member_mq = F.pad(opened.hidden.member_mg, (0, encoder.inputs.n_covariates))
    # Selection is discontinuous: logits in bfloat16 would select other genes.
    with torch.autocast(attention_na.device.type, enabled=False):
        folded = attend.norm.fold(at_least_float32(attention_na), attend.linear.weight)
        hidden = opened.hidden._replace(member_mg=member_mq)
        field = Field(attend.linear.weight, *folded, gamma ** len(masks), hidden)
        if masks:
            field = field._replace(known=measure_known(field, masks, gamma))
        indptr, gene = select(field, power)
        logits = field.measure(indptr, gene, relax(masks, indptr, gene, gamma))
        return Entries(indptr, gene, project(indptr, logits, power))


@torch.no_grad()
def measure_known(field: Field, masks: list[Entries], gamma: float) -> Entries:
    """Logits of the genes that steps before have selected, whose prior is another."""
    indptr, gene = unite(masks)
    return Entries(indptr, gene, field.measure(indptr, gene, relax(masks, indptr, gene, gamma)))


def relax(masks: list[Entries], indptr: Tensor, gene: Tensor, gamma: float) -> Tensor | float:
    """Prior at entries (e,): the product of γ - M over the steps so far, differentiable."""
    prior: Tensor | float = 1.0
    for mask in masks:
        prior = prior * (gamma - look_up(mask, indptr, gene))
    return prior


def measure_entropy(mask: Entries) -> Tensor:
    """Mean over cells of -Σ M log M in nats."""
    tiny = torch.finfo(mask.value.dtype).tiny
    return -(mask.value * (mask.value + tiny).log()).sum() / mask.n_rows
