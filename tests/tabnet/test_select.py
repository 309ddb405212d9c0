"""Selection by tiles: what the projection selects is among the candidates, whatever the logits."""

from dataclasses import dataclass

import entmax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas.tabnet import select as selection
from tabatlas.tabnet.entries import Entries, GeneSets, from_dense
from tabatlas.tabnet.normalization import cut_chunks
from tabatlas.tabnet.projections import PROJECTIONS
from tabatlas.tabnet.select import POWER, Field, project, select

PEERS = {"sparsemax": entmax.sparsemax, "entmax": entmax.entmax15}
LOGITS = {
    "normal": lambda g: torch.randn(8, 300, generator=g, dtype=torch.float64),
    "flat": lambda g: torch.full((8, 300), 0.7, dtype=torch.float64),
    "nearly flat": lambda g: 1e-3 * torch.randn(8, 300, generator=g, dtype=torch.float64),
    "heavy-tailed": lambda g: torch.empty(8, 300, dtype=torch.float64).cauchy_(generator=g),
    "tied": lambda g: torch.randint(-2, 3, (8, 300), generator=g).double() / 4,
    "at the threshold": lambda g: (
        -torch.ones(8, 300, dtype=torch.float64).index_fill(1, torch.tensor([7]), 0.0)
    ),
    "shrinking": lambda g: -(2.0 ** -torch.arange(300, dtype=torch.float64)).expand(8, 300),
    "one gene": lambda g: torch.randn(8, 1, generator=g, dtype=torch.float64),
}


@pytest.fixture(params=POWER)
def name(request) -> str:
    return request.param


def spell_field(logits_ng, hidden=None) -> Field:
    """A field of just these logits: each cell's attention is to a weight of its own."""
    n_cells, n_genes = logits_ng.shape
    ones, zeros = logits_ng.new_ones(1, n_genes), logits_ng.new_zeros(1, n_genes)
    attention_na = torch.eye(n_cells, dtype=logits_ng.dtype)
    hidden = hide_nothing(n_cells, n_genes) if hidden is None else hidden
    return Field(logits_ng.t(), attention_na, ones, zeros, [n_cells], 1.0, hidden)


def hide_nothing(n_cells, n_genes) -> GeneSets:
    return GeneSets(torch.zeros(n_cells, dtype=torch.int64), torch.zeros(1, n_genes) > 0)


@pytest.mark.parametrize("kind", LOGITS)
def test_selected_shares_and_gradients_are_those_of_the_entmax_package(name, kind, generator):
    ours = LOGITS[kind](generator).contiguous().requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    field = spell_field(ours)
    indptr, gene = select(field, POWER[name])
    share = project(indptr, field.measure(indptr, gene, 1.0), POWER[name])
    mask_ng = Entries(indptr, gene, share).to_dense(ours.shape[1])
    expected = PEERS[name](theirs, dim=-1)
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    (mask_ng * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(mask_ng, expected, rtol=0, atol=1e-10)
    # At the threshold itself a gene may belong to the support or not.
    if kind != "at the threshold":
        assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-10)


@dataclass
class Shape:
    """What a field may be like."""

    sizes: list[int]
    n_genes: int
    n_attention: int
    gain: float
    n_sets: int
    is_later: bool
    tile_bytes: int


shapes = st.builds(
    Shape,
    sizes=st.builds(cut_chunks, st.integers(1, 20), st.integers(1, 9)),
    n_genes=st.integers(1, 200),
    n_attention=st.integers(1, 5),
    gain=st.sampled_from([1e-4, 0.1, 1.0, 50.0]),
    n_sets=st.integers(0, 3),
    is_later=st.booleans(),
    tile_bytes=st.sampled_from([1, 5000, 1 << 22]),
)


def draw_field(shape: Shape, generator, dtype):
    """A field, and its logits (n, g) as a dense computation has them."""
    n_cells, n_chunks = sum(shape.sizes), len(shape.sizes)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=dtype)

    attention_na = draw(n_cells, shape.n_attention)
    weight_ga = draw(shape.n_genes, shape.n_attention)
    scale_cg = shape.gain * draw(n_chunks, shape.n_genes)
    shift_cg = shape.gain * draw(n_chunks, shape.n_genes)
    hidden = hide_nothing(n_cells, shape.n_genes)
    field = Field(weight_ga, attention_na, scale_cg, shift_cg, shape.sizes, 1.0, hidden)
    chunk_n = field.number_chunks()
    logits_ng = attention_na @ weight_ga.t() * scale_cg[chunk_n] + shift_cg[chunk_n]
    if shape.is_later:
        used_ng = torch.rand(logits_ng.shape, generator=generator) < 0.2
        prior_ng = torch.where(used_ng, torch.rand(logits_ng.shape, generator=generator), 1.3)
        logits_ng = logits_ng * prior_ng.to(dtype)
        row, gene = used_ng.nonzero(as_tuple=True)
        known = from_dense(used_ng.to(dtype))._replace(value=logits_ng[row, gene])
        field = field._replace(prior=1.3, known=known)
    if shape.n_sets:
        set_n = torch.randint(shape.n_sets, (n_cells,), generator=generator)
        member_mg = torch.rand(shape.n_sets, shape.n_genes, generator=generator) < 0.4
        field = field._replace(hidden=GeneSets(set_n, member_mg))
        logits_ng = logits_ng.masked_fill(member_mg[set_n], -torch.inf)
    return field, logits_ng


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@settings(deadline=None, max_examples=80, derandomize=True)
@given(shape=shapes, name=st.sampled_from(list(POWER)), seed=st.integers(0, 1000))
def test_all_that_is_selected_is_a_candidate_and_nothing_hidden_is(shape, dtype, name, seed):
    field, logits_ng = draw_field(shape, torch.Generator().manual_seed(seed), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TILE_BYTES", shape.tile_bytes)
        indptr, gene = select(field, POWER[name])
    found = Entries(indptr, gene, torch.ones(len(gene)))
    candidate_ng = found.to_dense(shape.n_genes) > 0
    mask_ng = PROJECTIONS[name](logits_ng)
    # Rounding of a logit, within which a gene may be selected by one computation alone.
    rounding = 1e3 * torch.finfo(dtype).eps * max(1, shape.gain)
    assert not (mask_ng[~candidate_ng] > rounding).any()
    assert not candidate_ng[logits_ng == -torch.inf].any()
    for row in gene.split(indptr.diff().tolist()):
        assert (row.diff() > 0).all()
    # No more than it takes: candidates that get nothing are rare.
    assert (candidate_ng & (mask_ng == 0)).sum() <= 0.05 * len(gene) + 1


def test_a_row_of_hidden_genes_alone_has_no_candidates(name, generator):
    logits_ng = torch.randn(3, 9, generator=generator)
    hidden = GeneSets(torch.tensor([0, 1, 0]), torch.tensor([[False] * 9, [True] * 9]))
    indptr, gene = select(spell_field(logits_ng, hidden), POWER[name])
    assert indptr[1] == indptr[2]
    share = project(indptr, spell_field(logits_ng).measure(indptr, gene, 1.0), POWER[name])
    sums = [row.sum().item() for row in share.split(indptr.diff().tolist())]
    assert sums == pytest.approx([1, 0, 1], abs=1e-6)


def test_twenty_thousand_flat_logits_all_stay(name):
    logits_ng = torch.full((2, 20_000), 3.0)
    field = spell_field(logits_ng)
    indptr, gene = select(field, POWER[name])
    assert len(gene) == 40_000
    share = project(indptr, field.measure(indptr, gene, 1.0), POWER[name])
    assert torch.allclose(share, torch.tensor(1 / 20_000), rtol=1e-4)
