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
from tabatlas.tabnet.products import multiply
from tabatlas.tabnet.select import POWER, Field, project, select


class Input(NamedTuple):
    """The input of a minibatch, with which every step begins."""

    x: Entries  # of seen genes
    hidden: GeneSets
    gain_f: Tensor  # x̂ = gain · x + offset, of genes and then of columns
    offset_f: Tensor
    columns_nc: Tensor  # x̂ of covariates that are inputs
    condition_nc: Tensor
    weight_fh: Tensor  # first shared linear map


def encode(
    encoder: Encoder,
    x: Entries,
    hidden: GeneSets | None = None,
    covariates: Covariates | None = None,
) -> Encoding:
    """Encode log1p(CP10k) as `encoder(…)` does; `Encoding.masks` hold what each step selects."""
    opened = open_input(encoder, x, hidden, covariates)
    features = encoder.splitter.finish(map_whole(encoder, opened), encoder.shared)
    _, attention_na = encoder.split(features)
    decisions, masks = [], []
    for attend, transform in zip(encoder.attentive, encoder.feature, strict=True):
        mask = attend_sparsely(encoder, attend, attention_na, masks, opened)
        masks.append(mask)
        features = transform.finish(map_selected(encoder, opened, mask), encoder.shared)
        decision_nd, attention_na = encoder.split(features)
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
    weight_fh = encoder.shared[0].weight.t()
    return Input(x, hidden, gain_f, offset_f, scaled_nc, condition_nc, weight_fh)


def map_whole(encoder: Encoder, opened: Input) -> Tensor:
    """x̂ W₁ (n, 2h) of the whole input."""
    n_genes = len(encoder.token_g)
    weight_gh = opened.weight_fh[:n_genes]
    scaled_gh = opened.gain_f[:n_genes, None] * weight_gh
    absent_mg = torch.where(opened.hidden.member_mg, encoder.token_g, opened.offset_f[:n_genes])
    absent_nh = (absent_mg @ weight_gh).index_select(0, opened.hidden.set_n)
    return multiply(opened.x, scaled_gh) + absent_nh + map_columns(opened, opened.columns_nc)


def map_selected(encoder: Encoder, opened: Input, mask: Entries) -> Tensor:
    """(M ∘ x̂) W₁ (n, 2h): rows of W₁ only for genes that the mask selects."""
    n_genes, place = len(encoder.token_g), mask.gene.long()
    gain, offset = (one.index_select(0, place) for one in (opened.gain_f, opened.offset_f))
    x = look_up(opened.x, mask.indptr, mask.gene)
    weighted = mask.value * torch.addcmul(offset, gain, x)
    columns_nc = opened.columns_nc
    if encoder.inputs.n_covariates:
        weighted = weighted.masked_fill(place >= n_genes, 0)
        mask_nq = spread_tail(mask, n_genes, encoder.inputs.n_covariates)
        columns_nc = columns_nc * encoder.inputs.spread_covariates(mask_nq)
    selected_nh = multiply(mask._replace(value=weighted), opened.weight_fh)
    return selected_nh + map_columns(opened, columns_nc)


def map_columns(opened: Input, columns_nc: Tensor) -> Tensor:
    """What covariates add to the first linear map (n, 2h), those of the input as given."""
    dense_nc = torch.cat([columns_nc, opened.condition_nc], dim=1)
    return dense_nc @ opened.weight_fh[len(opened.weight_fh) - dense_nc.shape[1] :]


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
