"""What the Triton kernels must do; `test_select_cuda.py` runs this file where they can run."""

import copy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tabatlas.tabnet import loops
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import Entries, GeneSets, from_dense
from tabatlas.tabnet.projections import PROJECTIONS, find_threshold, subtract_top
from tabatlas.tabnet.select import center_gradient
from tabatlas.tabnet.select_cuda import find_candidates, find_gaps
from tabatlas.tabnet.sparse import encode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = {1: "sparsemax", 2: "entmax"}
MARGIN = 1e-5
ROUNDING = 2e-6  # of a logit, in units of the cell's largest


class Case(NamedTuple):
    """Logits of cells over genes, as `find_candidates` takes them."""

    weight_ga: Tensor
    attention_na: Tensor
    scale_cg: Tensor
    shift_cg: Tensor
    prior: float
    hidden: GeneSets
    known: Entries | None = None

    def to_dense(self) -> Tensor:
        """The logits, in float64."""
        rows = torch.arange(len(self.attention_na)).tensor_split(len(self.scale_cg))
        chunk_n = torch.cat([torch.full_like(own, chunk) for chunk, own in enumerate(rows)])
        product_ng = self.attention_na.double() @ self.weight_ga.double().t()
        logits_ng = self.prior * (product_ng * self.scale_cg[chunk_n] + self.shift_cg[chunk_n])
        logits_ng[self.hidden.to_dense()] = -torch.inf
        if self.known is not None:
            logits_ng[self.known.rows(), self.known.gene.long()] = self.known.value.double()
        return logits_ng


class Found(NamedTuple):
    """Candidates, and the logits among which they were found."""

    logits_ng: Tensor
    power: int
    entries: Entries


def draw(generator, n_cells=6, n_genes=300, n_a=20, n_chunks=1, gain=0.3) -> Case:
    """Normal logits whose deviation is about `gain`."""
    scale_cg = gain * n_a**-0.5 * (0.5 + torch.rand(n_chunks, n_genes, generator=generator))
    return Case(
        torch.randn(n_genes, n_a, generator=generator),
        torch.randn(n_cells, n_a, generator=generator),
        scale_cg,
        0.1 * torch.randn(n_chunks, n_genes, generator=generator),
        prior=1.0,
        hidden=GeneSets(torch.zeros(n_cells, dtype=torch.int64), torch.zeros(1, n_genes) > 0),
    )


def draw_flat(generator) -> Case:
    case = draw(generator)
    return case._replace(scale_cg=0 * case.scale_cg, shift_cg=torch.full_like(case.shift_cg, 3.0))


def draw_tied(generator) -> Case:
    case = draw(generator, n_a=3)
    return case._replace(
        attention_na=case.attention_na.sign(),
        weight_ga=case.weight_ga.sign() / 4,
        scale_cg=torch.ones_like(case.scale_cg),
        shift_cg=torch.zeros_like(case.shift_cg),
    )


def draw_heavy(generator) -> Case:
    case = draw(generator)
    return case._replace(weight_ga=torch.empty_like(case.weight_ga).cauchy_(generator=generator))


def draw_geometric(generator) -> Case:
    """Each step of Newton's method drops few genes only."""
    case = draw(generator, n_genes=640)
    shift_g = -(2.0 ** -(torch.arange(640) // 32).float())
    return case._replace(scale_cg=0 * case.scale_cg, shift_cg=shift_g[None])


def hide(case: Case, generator, share=0.5) -> Case:
    """With sets of hidden genes; that of the last cell is all of them."""
    n_cells, n_genes = len(case.attention_na), len(case.weight_ga)
    member_mg = torch.rand(4, n_genes, generator=generator) < share
    member_mg[3] = True
    set_n = torch.randint(0, 3, (n_cells,), generator=generator)
    set_n[-1] = 3
    return case._replace(hidden=GeneSets(set_n, member_mg))


def remember(case: Case, generator, share=0.1) -> Case:
    """After steps that selected some genes, whose logits are known."""
    logits_ng = case.to_dense().float()
    known_ng = torch.rand(logits_ng.shape, generator=generator) < share
    known_ng &= logits_ng.isfinite()
    known_ng[0] = False
    indptr, gene, _ = from_dense(known_ng.float())
    lowered = logits_ng[known_ng] * torch.rand(len(gene), generator=generator)
    return case._replace(known=Entries(indptr, gene, lowered), prior=1.5)


CASES = {
    "normal": draw,
    "sparse": lambda g: draw(g, gain=3.0),
    "chunks of 4 and 3 cells": lambda g: draw(g, n_cells=11, n_chunks=3),
    "more cells than a tile": lambda g: draw(g, n_cells=67, n_genes=9),
    "wide attention": lambda g: draw(g, n_cells=9, n_a=128),
    "narrow attention": lambda g: draw(g, n_cells=9, n_a=1),
    "whole words and tiles": lambda g: draw(g, n_genes=256, n_a=32),
    "flat": draw_flat,
    "tied": draw_tied,
    "heavy-tailed": draw_heavy,
    "geometric": draw_geometric,
    "one gene": lambda g: draw(g, n_genes=1),
    "one cell": lambda g: draw(g, n_cells=1),
    "hidden": lambda g: hide(draw(g, n_chunks=2), g),
    "known": lambda g: remember(draw(g, n_chunks=2), g),
    "hidden and known": lambda g: remember(hide(draw(g), g), g),
    "all known": lambda g: remember(draw(g), g, share=1.1),
}


@pytest.fixture(params=NAMES)
def power(request) -> int:
    return request.param


@pytest.fixture(
    scope="module", params=[(name, power) for name in CASES for power in NAMES], ids=str
)
def found(request) -> Found:
    name, power = request.param
    return find(CASES[name](torch.Generator().manual_seed(0)), power)


def find(case: Case, power: int) -> Found:
    """Run the kernels on the device."""
    moved = [move(one) for one in case]
    indptr, gene = (one.cpu() for one in find_candidates(*moved, power, MARGIN))
    return Found(case.to_dense(), power, Entries(indptr, gene, torch.ones(len(gene))))


def move(one):
    """A tensor, or a tuple of tensors, on the device."""
    if isinstance(one, tuple):
        return type(one)(*map(move, one))
    return one.to(DEVICE) if isinstance(one, Tensor) else one


def reach_threshold(logits_ng: Tensor, power: int) -> Tensor:
    """The logit (n, 1) above which a gene is selected."""
    top_n1 = logits_ng.amax(1, keepdim=True).clamp_min(-1e30)
    return top_n1 + power * find_threshold(subtract_top(logits_ng) / power, power)


def test_candidates_are_what_the_mask_selects_and_little_more(found):
    logits_ng, power, entries = found
    found_ng = entries.to_dense(logits_ng.shape[1]).bool()
    assert found_ng[logits_ng > reach_threshold(logits_ng, power)].all()
    size_n1 = logits_ng.amax(1, keepdim=True).abs().clamp(1, 1e30)
    padded = F.pad(logits_ng, (0, -logits_ng.shape[1] % 32), value=-torch.inf)
    floor_n1 = reach_threshold(padded.unflatten(1, (-1, 32)).amax(2), power) - MARGIN * size_n1
    assert found_ng[logits_ng > floor_n1 + ROUNDING * size_n1].all()
    assert not found_ng[~(logits_ng > floor_n1 - ROUNDING * size_n1)].any()


def test_candidates_of_a_cell_are_ascending(found):
    indptr, gene, _ = found.entries
    keys = found.entries.rows() * found.logits_ng.shape[1] + gene
    assert (keys.diff() > 0).all()
    assert gene.dtype == torch.int32
    assert indptr[-1] == len(gene)


def test_masks_and_gradients_from_candidates_are_those_of_all_genes(found):
    dense_ng, power = found.logits_ng.clone().requires_grad_(), found.power
    mask_ng = PROJECTIONS[NAMES[power]](dense_ng)
    grad_ng = torch.linspace(-1, 1, mask_ng.numel(), dtype=torch.float64).view(mask_ng.shape)
    mask_ng.backward(grad_ng)
    at = found.entries.rows(), found.entries.gene.long()
    several = (found.entries.indptr, found.logits_ng[at].float(), grad_ng[at].float())
    indptr, logits, grad = (one.to(DEVICE) for one in several)
    gap = find_gaps(indptr, logits, power)
    centered = center_gradient(indptr, gap if power == 2 else gap.ceil(), grad)
    assert torch.allclose(gap.cpu().double() ** power, mask_ng.detach()[at], atol=1e-5)
    assert torch.allclose(centered.cpu().double(), dense_ng.grad[at], atol=1e-4)


def test_few_candidates_are_not_selected(generator, power):
    logits_ng, _, entries = find(draw(generator, n_cells=4, n_genes=3000, gain=1.0), power)
    assert len(entries.gene) < 1.1 * (logits_ng > reach_threshold(logits_ng, power)).sum()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_number_reaches_the_mask(generator, power, broken, place):
    """In a gene's weights every cell has it, in a cell's attention only that one."""
    case = hide(draw(generator), generator)
    case[place][2] = broken
    logits_ng, _, entries = find(case, power)
    row = entries.rows()
    logits = logits_ng[row, entries.gene.long()].float()
    gap = find_gaps(entries.indptr.to(DEVICE), logits.to(DEVICE), power).cpu()
    shown_n = torch.zeros(len(logits_ng)).index_add(0, row, gap.isnan().float()) > 0
    expected_n = ~(logits_ng.amax(1) < torch.inf)
    assert torch.equal(shown_n, expected_n)
    assert expected_n.any()


def test_rows_of_any_length_are_solved(generator, power):
    lengths = [0, 1, 5, 0, 1024, 3000, 0]
    indptr = torch.tensor([0, *lengths]).cumsum(0)
    logits = 0.2 * torch.randn(int(indptr[-1]), generator=generator)
    gap = find_gaps(indptr.to(DEVICE), logits.to(DEVICE), power).cpu()
    project = PROJECTIONS[NAMES[power]]
    expected = [project(row[None])[0] for row in logits.split(lengths) if len(row)]
    assert torch.allclose(gap**power, torch.cat(expected), atol=1e-6)


@pytest.mark.parametrize("mask_type", NAMES.values())
def test_the_sparse_encoder_gives_what_it_gives_on_a_cpu(mask_type, tiny, generator, monkeypatch):
    """Decisions, masks, statistics and gradients of three steps, some genes hidden."""
    architecture = replace(tiny, mask_type=mask_type)
    encoder = Encoder(architecture, torch.rand(40, generator=generator), torch.ones(40), generator)
    for attend in encoder.attentive:
        torch.nn.init.ones_(attend.norm.weight)
    x_ng = torch.rand(10, 40, generator=generator)
    x = from_dense(x_ng * (torch.rand(10, 40, generator=generator) < 0.3))
    member_mg = torch.rand(2, 40, generator=generator) < 0.3
    hidden = GeneSets(torch.arange(10) % 2, member_mg)
    expected = run(copy.deepcopy(encoder), x, hidden)
    # Without a GPU Triton's interpreter runs, and torch.sparse on the CPU.
    monkeypatch.setattr(loops, "can_run", lambda tensor: False)
    results = run(encoder.to(DEVICE), move(x), move(hidden))
    for name, value in expected.items():
        # In float32 the steps magnify what the first of them rounds.
        tolerance = 1e-3 * value.abs().max().item()
        assert torch.allclose(results[name].cpu(), value, rtol=0, atol=tolerance), name


def run(encoder: Encoder, x: Entries, hidden: GeneSets) -> dict[str, Tensor]:
    """What training sees of an encoder."""
    encoding = encode(encoder, x, hidden)
    decision_snd = encoding.decision_snd
    weight = torch.linspace(-1, 1, decision_snd.numel(), device=decision_snd.device)
    ((decision_snd.flatten() * weight).sum() + encoding.entropy).backward()
    masks_sng = torch.stack([mask.to_dense(len(encoder.token_g)) for mask in encoding.masks])
    results = {"decision": decision_snd, "masks": masks_sng, **dict(encoder.named_buffers())}
    results |= {f"gradient of {name}": one.grad for name, one in encoder.named_parameters()}
    return {
        name: value.detach()
        for name, value in results.items()
        if value is not None and value.numel()
    }
