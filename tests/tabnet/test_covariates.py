"""Covariates beside the genes; pytorch-tabnet's embeddings of a mixed table are the oracle."""

import pytest
import torch
from both_forms import FORMS, Cells, classify
from pytorch_tabnet.tab_network import TabNet
from test_peer_parity import TOLERANCE, compare_gradients, copy_pairs, pair_encoders, randomize

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariate, Covariates
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import from_dense
from tabatlas.tabnet.importance import weigh_masks
from tabatlas.train.schedule import build_optimizer

N_GENES, N_CLASSES, N_CELLS = 20, 4, 48
SIZES, WIDTHS = (5, 3, 7), (3, 1, 4)
LEVELS = [tuple(f"level{n}" for n in range(size)) for size in SIZES]


def make_covariates(role):
    """A number and three categories, each of another width."""
    number = Covariate("age", role, mean=40.0, deviation=12.0)
    named = zip(("assay", "disease", "donor"), LEVELS, WIDTHS, strict=True)
    return [number, *(Covariate(name, role, levels, width) for name, levels, width in named)]


def make_network(generator, covariates, **knobs):
    architecture = Architecture(n_d=7, n_a=6, n_steps=3, virtual_batch_size=16, **knobs)
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    encoder = Encoder(architecture, *statistics, generator, covariates)
    return Classifier(encoder, N_CLASSES, generator).double()


@pytest.fixture
def x_ng(generator):
    return torch.randn(N_CELLS, N_GENES, generator=generator, dtype=torch.float64)


@pytest.fixture
def covariates(generator):
    """Known values of `make_covariates`."""
    columns = [torch.randint(1, n + 1, (N_CELLS,), generator=generator) for n in SIZES]
    number_nj = 40 + 12 * torch.randn(N_CELLS, 1, generator=generator, dtype=torch.float64)
    return Covariates(torch.stack(columns, dim=1), number_nj)


@pytest.fixture
def doubles(monkeypatch):
    """The peer in float64, also where it makes tensors or casts by itself."""
    monkeypatch.setattr(torch, "FloatTensor", torch.DoubleTensor)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask_type", ["sparsemax", "entmax"])
@pytest.mark.parametrize("form", FORMS)
def test_a_mixed_table_gives_the_outputs_and_masks_of_the_peer(
    generator, x_ng, covariates, mask_type, training, form
):
    ours = make_network(
        generator, make_covariates("input"), scaling="batchnorm", mask_type=mask_type
    )
    first = N_GENES + 1  # genes, the number, then the categories
    peer = TabNet(
        first + len(SIZES),
        N_CLASSES,
        n_d=7,
        n_a=6,
        cat_idxs=list(range(first, first + len(SIZES))),
        cat_dims=list(SIZES),
        cat_emb_dim=list(WIDTHS),
        virtual_batch_size=16,
        mask_type=mask_type,
        group_attention_matrix=torch.eye(first + len(SIZES)),
    )
    randomize(peer, generator)
    tables = list(zip((1, 7, 11), WIDTHS, peer.embedder.embeddings, strict=True))
    # Our row 0 of each table is the unknown level, which the peer lacks.
    embedding = ours.encoder.inputs.table
    for row, width, theirs in tables:
        embedding.weight.data[row : row + len(theirs.weight), :width] = theirs.weight
    pairs = list(pair_encoders(peer.tabnet.encoder, ours.encoder))
    copy_pairs(pairs)
    ours.head.weight.data.copy_(peer.tabnet.final_mapping.weight)
    peer.train(training), ours.train(training)

    age = (covariates.number_nj - 40) / 12
    table = torch.cat([x_ng, age, (covariates.level_nk - 1).double()], dim=1)
    their_logits, their_loss = peer(table)
    their_importance, their_masks = peer.forward_masks(table)
    cells = Cells(x_ng, covariates=covariates)
    logits_nc, encoding, masks_snq = classify(ours, form, cells)

    close = {"rtol": 0, "atol": TOLERANCE[torch.float64]}
    nothing = torch.zeros(1, 1)  # is hidden
    assert torch.allclose(logits_nc, their_logits, **close)
    assert torch.allclose(encoding.entropy, -their_loss, **close)
    for mask_nq, their_mask in zip(masks_snq, their_masks.values(), strict=True):
        assert torch.allclose(ours.encoder.groups.spread(mask_nq, nothing), their_mask, **close)
    weighted = weigh_masks([from_dense(mask_nq) for mask_nq in masks_snq], encoding.decision_snd)
    importance_nq = weighted.to_dense(masks_snq.shape[-1])
    importance_nf = ours.encoder.groups.spread(importance_nq, nothing)
    expected = (their_importance / their_importance.sum(-1, keepdim=True)).nan_to_num(0)
    assert torch.allclose(importance_nf, expected, **close)

    (logits_nc.square().mean() + encoding.entropy).backward()
    (their_logits.square().mean() - their_loss).backward()
    compare_gradients(pairs, 10 * TOLERANCE[torch.float64])
    for row, width, theirs in tables:
        found = embedding.weight.grad[row : row + len(theirs.weight), :width]
        assert torch.allclose(found, theirs.weight.grad, **close)


@pytest.mark.parametrize("role", ["input", "condition"])
def test_each_covariate_reaches_the_output_and_learns(generator, x_ng, covariates, role):
    network = make_network(generator, make_covariates(role))
    network.eval()
    logits_nc, encoding = network(x_ng, covariates=covariates, return_masks=True)
    n_selected = N_GENES + (4 if role == "input" else 0)
    assert encoding.masks_sng.shape == (3, N_CELLS, n_selected)
    for column in range(len(SIZES)):
        level_nk = covariates.level_nk.clone()
        level_nk[:, column] = 0
        changed, _ = network(x_ng, covariates=covariates._replace(level_nk=level_nk))
        assert not torch.equal(changed, logits_nc)
    other, _ = network(x_ng, covariates=covariates._replace(number_nj=covariates.number_nj + 9))
    assert not torch.equal(other, logits_nc)
    logits_nc.square().sum().backward()
    columns = network.encoder.inputs if role == "input" else network.encoder.conditions
    assert columns.table.weight.grad.any()


def test_what_is_not_given_is_unknown(generator, x_ng, covariates):
    network = make_network(generator, make_covariates("input") + make_covariates("condition"))
    network.eval()
    level_nk = torch.zeros(N_CELLS, 2 * len(SIZES), dtype=torch.int64)
    # An unknown number stands at its mean.
    number_nj = torch.full((N_CELLS, 2), 40.0, dtype=torch.float64)
    silent, _ = network(x_ng)
    told, _ = network(x_ng, covariates=Covariates(level_nk, number_nj))
    assert torch.equal(silent, told)


def test_a_network_without_covariates_has_no_weights_for_them(generator):
    named = [name for name, _ in make_network(generator, []).named_parameters()]
    assert not any("inputs" in name or "conditions" in name for name in named)


def test_embeddings_do_not_decay(generator):
    network = make_network(generator, make_covariates("input"))
    decayed, plain = build_optimizer(network, 0.01, 0.05).param_groups
    assert plain["weight_decay"] == 0
    table = network.encoder.inputs.table.weight
    assert any(parameter is table for parameter in plain["params"])
    assert not any(parameter is table for parameter in decayed["params"])
