"""pytorch-tabnet 4.1.0 is the numerical oracle: its weights give its outputs in our network."""

import pytest
import torch
from both_forms import FORMS, Cells, classify
from pytorch_tabnet.tab_network import TabNetNoEmbeddings, TabNetPretraining
from pytorch_tabnet.utils import create_group_matrix

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import from_dense
from tabatlas.tabnet.importance import weigh_masks
from tabatlas.tabnet.sparse import encode

N_GENES, N_CLASSES = 60, 5
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
SHAPES = [
    {"n_steps": 1, "mask_type": "entmax", "n_shared": 3, "n_independent": 5},
    {"n_steps": 3, "mask_type": "entmax"},
    {"n_steps": 4, "mask_type": "sparsemax", "gamma": 1.7, "n_shared": 1, "n_independent": 0},
]


@pytest.fixture(params=[torch.float64])
def dtype(request, monkeypatch) -> torch.dtype:
    if request.param == torch.float64:
        # The peer keeps √½ in float32, which alone is an error of 2e-8.
        monkeypatch.setattr(torch, "FloatTensor", torch.DoubleTensor)
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape['mask_type']}-{shape['n_steps']}")
def architecture(request) -> Architecture:
    shape = {"n_d": 7, "n_a": 6, "virtual_batch_size": 16, "scaling": "batchnorm", **request.param}
    return Architecture(**shape)


def spell_knobs(architecture, groups, dtype):
    """The peer's own words for an architecture."""
    same = ("n_d", "n_a", "n_steps", "gamma", "n_independent", "n_shared", "virtual_batch_size")
    knobs = {name: getattr(architecture, name) for name in (*same, "mask_type")}
    # Theirs is of float32, in which a third is none.
    share_qg = create_group_matrix([list(group) for group in groups], N_GENES).to(dtype)
    return {**knobs, "group_attention_matrix": share_qg / share_qg.sum(1, keepdim=True)}


@pytest.fixture(params=[(), ((3, 8, 20), (0, 59), (41,))], ids=["single genes", "groups"])
def groups(request) -> tuple[tuple[int, ...], ...]:
    return request.param


@pytest.fixture
def peer(architecture, groups, dtype, generator) -> TabNetNoEmbeddings:
    network = TabNetNoEmbeddings(
        N_GENES,
        N_CLASSES,
        **spell_knobs(architecture, groups, dtype),
    )
    return randomize(network, generator).to(dtype)


@pytest.fixture
def ours(architecture, groups, peer, dtype, generator) -> Classifier:
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    encoder = Encoder(architecture, *statistics, generator, groups=groups)
    network = Classifier(encoder, N_CLASSES, generator)
    copy_pairs(pair_encoders(peer.encoder, network.to(dtype).encoder))
    network.head.weight.data.copy_(peer.final_mapping.weight)
    return network


@pytest.fixture
def cells_ng(dtype, generator) -> torch.Tensor:
    return torch.randn(48, N_GENES, generator=generator, dtype=dtype)


def randomize(network, generator):
    """Draw every weight and statistic, so that none of them is a trivial 0 or 1."""
    for name, tensor in network.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(std=tensor.shape[-1] ** -0.5, generator=generator)
    return network


def pair_norms(theirs, ours):
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield getattr(theirs, name), getattr(ours, name)


def pair_feature_transformers(theirs, ours, n_shared):
    layers = [*theirs.shared.glu_layers, *getattr(theirs.specifics, "glu_layers", [])]
    for layer, norm in zip(layers, ours.norms, strict=True):
        yield from pair_norms(layer.bn.bn, norm)
    for layer, linear in zip(layers[n_shared:], ours.independent, strict=True):
        yield layer.fc.weight, linear.weight


def pair_encoders(theirs, ours):
    """Tensors of the peer's encoder and of ours that mean the same."""
    n_shared = len(ours.shared)
    yield from pair_norms(theirs.initial_bn, ours.scale)
    for layer, linear in zip(theirs.initial_splitter.shared.glu_layers, ours.shared, strict=True):
        yield layer.fc.weight, linear.weight
    splitters = [(theirs.initial_splitter, ours.splitter)]
    steps = zip(theirs.feat_transformers, ours.feature, strict=True)
    for theirs_step, ours_step in (*splitters, *steps):
        yield from pair_feature_transformers(theirs_step, ours_step, n_shared)
    for theirs_step, ours_step in zip(theirs.att_transformers, ours.attentive, strict=True):
        yield theirs_step.fc.weight, ours_step.linear.weight
        yield from pair_norms(theirs_step.bn.bn, ours_step.norm)


def pair_decoders(theirs, ours):
    yield theirs.feat_transformers[0].shared.glu_layers[0].fc.weight, ours.shared[0].weight
    yield theirs.reconstruction_layer.weight, ours.genes.weight
    for theirs_step, ours_step in zip(theirs.feat_transformers, ours.feature, strict=True):
        yield from pair_feature_transformers(theirs_step, ours_step, n_shared=1)


def copy_pairs(pairs):
    for theirs, ours in pairs:
        ours.data.copy_(theirs)


def compare_gradients(pairs, tolerance):
    for theirs, ours in pairs:
        if theirs.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= tolerance * theirs.grad.abs().max()


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


# In float32 only with running statistics: variances of 16 cells magnify rounding, the peer's too.
@pytest.mark.parametrize(
    ("dtype", "training"),
    [(torch.float64, True), (torch.float64, False), (torch.float32, False)],
    ids=str,
    indirect=["dtype"],
)
def test_logits_masks_and_entropy_are_the_peers(peer, ours, form, cells_ng, dtype, training):
    close = {"rtol": 0, "atol": TOLERANCE[dtype]}
    peer.train(training), ours.train(training)
    logits_nc, encoding, masks_snq = classify(ours, form, Cells(cells_ng))
    nothing = torch.zeros(1, 1)  # is hidden
    masks_sng = torch.stack([ours.encoder.groups.spread(one, nothing) for one in masks_snq])
    their_logits, their_loss = peer(cells_ng)
    their_importance, their_masks = peer.forward_masks(cells_ng)  # the former in float32 always
    assert torch.allclose(logits_nc, their_logits, **close)
    assert torch.allclose(encoding.entropy, -their_loss, **close)
    for mask_ng, their_mask in zip(masks_sng, their_masks.values(), strict=True):
        assert torch.allclose(mask_ng, their_mask, **close)
    weighted = weigh_masks([from_dense(mask_ng) for mask_ng in masks_sng], encoding.decision_snd)
    importance_ng = weighted.to_dense(cells_ng.shape[1])
    expected = their_importance / their_importance.sum(-1, keepdim=True)
    expected = expected.nan_to_num(0)  # a cell whose decisions are all 0
    assert torch.allclose(importance_ng.float(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str, indirect=True)
def test_gradients_are_the_peers(peer, ours, form, cells_ng, dtype):
    training = dtype == torch.float64
    peer.train(training), ours.train(training)
    logits_nc, encoding, _ = classify(ours, form, Cells(cells_ng))
    their_logits, their_loss = peer(cells_ng)
    (logits_nc.square().mean() + encoding.entropy).backward()
    (their_logits.square().mean() - their_loss).backward()
    pairs = list(pair_encoders(peer.encoder, ours.encoder))
    assert sum(theirs.grad is not None for theirs, _ in pairs) > 10
    compare_gradients(pairs, 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("training", [True, False])
def test_the_pretrainer_reconstructs_what_the_peers_does(
    architecture, groups, form, cells_ng, dtype, training, generator
):
    # Nothing is hidden: the peer sets a hidden value to 0 where we put a token.
    peer = TabNetPretraining(
        N_GENES, pretraining_ratio=0, **spell_knobs(architecture, groups, dtype)
    )
    randomize(peer, generator).to(dtype)
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    encoder = Encoder(architecture, *statistics, generator, groups=groups).to(dtype)
    decoder = Decoder(architecture, *statistics, generator).to(dtype)
    pairs = [*pair_encoders(peer.encoder, encoder), *pair_decoders(peer.decoder, decoder)]
    copy_pairs(pairs)
    for network in (peer, encoder, decoder):
        network.train(training)
    encoding = encoder(cells_ng) if form == "dense" else encode(encoder, from_dense(cells_ng))
    predicted_ng, expected_ng = decoder(encoding.decision_snd), peer(cells_ng)[0]
    assert torch.allclose(predicted_ng, expected_ng, rtol=0, atol=TOLERANCE[dtype])
    for prediction_ng in (predicted_ng, expected_ng):
        (prediction_ng - cells_ng).square().mean().backward()
    compare_gradients(pairs, 10 * TOLERANCE[dtype])
