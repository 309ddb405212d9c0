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
from tabatlas.tabnet.entries import Entries, GeneSets, append_columns, drop_members, look_up, unite
from tabatlas.tabnet.layers import AttentiveTransformer
from tabatlas.tabnet.precision import at_least_float32
from tabatlas.tabnet.products import multiply, multiply_dense, multiply_scaled
from tabatlas.tabnet.select import POWER, Field, project, select


class Input(NamedTuple):
    """The input of a minibatch, with which every step begins."""

    x: Entries  # of seen genes, and the columns of covariates that are inputs
    hidden: GeneSets  # among genes and columns
    gain_f: Tensor  # x̂ = gain · x + offset
    offset_f: Tensor
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
    x = append_columns(x, columns_nc, n_genes)
    # Covariates are never hidden.
    hidden = hidden._replace(member_mg=F.pad(hidden.member_mg, (0, columns_nc.shape[1])))
    return Input(x, hidden, *encoder.scale.fold(x, hidden), encoder.conditions(covariates))


def map_whole(encoder: Encoder, opened: Input, weight_fh: Tensor) -> tuple[Tensor, Tensor]:
    """x̂ W₁ (n, 2h) of the whole input, and W₁."""
    absent_mf = torch.where(opened.hidden.member_mg, encoder.list_tokens(), opened.offset_f)
    absent_mh, weight_fh = multiply_dense(absent_mf, weight_fh, 0)
    whole_nh, weight_fh = multiply_scaled(opened.x, opened.gain_f, weight_fh)
    whole_nh = whole_nh + absent_mh.index_select(0, opened.hidden.set_n)
    return add_conditions(whole_nh, opened, weight_fh)


def map_selected(
    encoder: Encoder, opened: Input, mask: Entries, weight_fh: Tensor
) -> tuple[Tensor, Tensor]:
    """(M ∘ x̂) W₁ (n, 2h) from rows of W₁ only for what the mask selects, and W₁."""
    selected = encoder.groups.spread_entries(mask, opened.hidden)
    place = selected.gene.long()
    gain, offset = (one.index_select(0, place) for one in (opened.gain_f, opened.offset_f))
    x = look_up(opened.x, selected.indptr, selected.gene)
    weighted = selected.value * torch.addcmul(offset, gain, x)
    selected_nh, weight_fh = multiply(selected._replace(value=weighted), weight_fh)
    return add_conditions(selected_nh, opened, weight_fh)


def add_conditions(mapped_nh: Tensor, opened: Input, weight_fh: Tensor) -> tuple[Tensor, Tensor]:
    """With what conditions add to the first linear map; and W₁."""
    if not opened.condition_nc.shape[1]:
        return mapped_nh, weight_fh
    added_nh, weight_fh = multiply_dense(opened.condition_nc, weight_fh, len(opened.gain_f))
    return mapped_nh + added_nh, weight_fh


def attend_sparsely(
    encoder: Encoder,
    attend: AttentiveTransformer,
    attention_na: Tensor,
    masks: list[Entries],
    opened: Input,
) -> Entries:
    """The mask of a step, given those of the steps before."""
    power, gamma = POWER[encoder.architecture.mask_type], encoder.architecture.gamma
    # Selection is discontinuous: logits in bfloat16 would select other genes.
    with torch.autocast(attention_na.device.type, enabled=False):
        folded = attend.norm.fold(at_least_float32(attention_na), attend.linear.weight)
        hidden = opened.hidden._replace(member_mg=encoder.groups.hide(opened.hidden.member_mg))
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
