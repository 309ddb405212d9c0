"""pytorch-tabnet 4.1.0 is the numerical oracle: its weights give its outputs in our network."""

import pytest
import torch
from pytorch_tabnet.tab_network import TabNetDecoder, TabNetNoEmbeddings

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.importance import weigh_masks

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


@pytest.fixture
def peer(architecture, dtype, generator) -> TabNetNoEmbeddings:
    network = TabNetNoEmbeddings(
        N_GENES,
        N_CLASSES,
        n_d=architecture.n_d,
        n_a=architecture.n_a,
        n_steps=architecture.n_steps,
        gamma=architecture.gamma,
        n_independent=architecture.n_independent,
        n_shared=architecture.n_shared,
        virtual_batch_size=architecture.virtual_batch_size,
        mask_type=architecture.mask_type,
        group_attention_matrix=torch.eye(N_GENES, dtype=dtype),
    )
    return randomize(network, generator).to(dtype)


@pytest.fixture
def ours(architecture, peer, dtype, generator) -> Classifier:
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    network = Classifier(Encoder(architecture, *statistics, generator), N_CLASSES, generator)
    copy_encoder(peer.encoder, network.to(dtype).encoder)
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


def copy_norm(theirs, ours):
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(ours, name).data.copy_(getattr(theirs, name))


def copy_feature_transformer(theirs, ours, n_shared):
    layers = [*theirs.shared.glu_layers, *getattr(theirs.specifics, "glu_layers", [])]
    for layer, norm in zip(layers, ours.norms, strict=True):
        copy_norm(layer.bn.bn, norm)
    for layer, linear in zip(layers[n_shared:], ours.independent, strict=True):
        linear.weight.data.copy_(layer.fc.weight)


def copy_encoder(theirs, ours):
    n_shared = len(ours.shared)
    copy_norm(theirs.initial_bn, ours.scale)
    for layer, linear in zip(theirs.initial_splitter.shared.glu_layers, ours.shared, strict=True):
        linear.weight.data.copy_(layer.fc.weight)
    copy_feature_transformer(theirs.initial_splitter, ours.splitter, n_shared)
    for theirs_step, ours_step in zip(theirs.feat_transformers, ours.feature, strict=True):
        copy_feature_transformer(theirs_step, ours_step, n_shared)
    for theirs_step, ours_step in zip(theirs.att_transformers, ours.attentive, strict=True):
        ours_step.linear.weight.data.copy_(theirs_step.fc.weight)
        copy_norm(theirs_step.bn.bn, ours_step.norm)


# In float32 only with running statistics: variances of 16 cells magnify rounding, the peer's too.
@pytest.mark.parametrize(
    ("dtype", "training"),
    [(torch.float64, True), (torch.float64, False), (torch.float32, False)],
    ids=str,
    indirect=["dtype"],
)
def test_logits_masks_and_entropy_are_the_peers(peer, ours, cells_ng, dtype, training):
    close = {"rtol": 0, "atol": TOLERANCE[dtype]}
    peer.train(training), ours.train(training)
    logits_nc, encoding = ours(cells_ng, return_masks=True)
    their_logits, their_loss = peer(cells_ng)
    their_importance, their_masks = peer.forward_masks(cells_ng)  # the former in float32 always
    assert torch.allclose(logits_nc, their_logits, **close)
    assert torch.allclose(encoding.entropy, -their_loss, **close)
    for mask_ng, their_mask in zip(encoding.masks_sng, their_masks.values(), strict=True):
        assert torch.allclose(mask_ng, their_mask, **close)
    importance_ng = weigh_masks(encoding.masks_sng, encoding.decision_snd)
    expected = their_importance / their_importance.sum(-1, keepdim=True)
    expected = expected.nan_to_num(0)  # a cell whose decisions are all 0
    assert torch.allclose(importance_ng.float(), expected, rtol=0, atol=1e-6)


def test_gradients_are_the_peers(peer, ours, cells_ng, dtype):
    logits_nc, encoding = ours(cells_ng)
    their_logits, their_loss = peer(cells_ng)
    (logits_nc.square().mean() + encoding.entropy).backward()
    (their_logits.square().mean() - their_loss).backward()
    first = peer.encoder.initial_splitter.shared.glu_layers[0].fc.weight.grad
    pairs = [(ours.encoder.shared[0].weight.grad, first)]
    for theirs_step, ours_step in zip(
        peer.encoder.att_transformers, ours.encoder.attentive, strict=True
    ):
        pairs.append((ours_step.linear.weight.grad, theirs_step.fc.weight.grad))
        pairs.append((ours_step.norm.weight.grad, theirs_step.bn.bn.weight.grad))
    pairs.append((ours.encoder.scale.weight.grad, peer.encoder.initial_bn.weight.grad))
    for gradient, expected in pairs:
        assert (gradient - expected).abs().max() <= 10 * TOLERANCE[dtype] * expected.abs().max()


def test_the_decoder_reconstructs_what_the_peers_does(architecture, dtype, generator):
    peer = TabNetDecoder(
        N_GENES,
        n_d=architecture.n_d,
        n_steps=architecture.n_steps,
        virtual_batch_size=architecture.virtual_batch_size,
    )
    randomize(peer, generator).to(dtype)
    statistics = torch.zeros(N_GENES), torch.ones(N_GENES)
    ours = Decoder(architecture, *statistics, generator).to(dtype)
    shared = peer.feat_transformers[0].shared.glu_layers[0].fc
    ours.shared[0].weight.data.copy_(shared.weight)
    ours.genes.weight.data.copy_(peer.reconstruction_layer.weight)
    for theirs_step, ours_step in zip(peer.feat_transformers, ours.feature, strict=True):
        copy_feature_transformer(theirs_step, ours_step, n_shared=1)
    shape = (architecture.n_steps, 32, architecture.n_d)
    decision_snd = torch.rand(shape, generator=generator, dtype=dtype)
    expected = peer(list(decision_snd))
    assert torch.allclose(ours(decision_snd), expected, rtol=0, atol=TOLERANCE[dtype])
