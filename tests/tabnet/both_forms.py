"""One network by its dense and by its sparse form, and everything about it that has to agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariate, Covariates
from tabatlas.tabnet.encoder import Encoder, Encoding
from tabatlas.tabnet.entries import GeneSets, from_dense
from tabatlas.tabnet.projections import find_threshold
from tabatlas.tabnet.select import POWER

FORMS = ("dense", "sparse")
N_CLASSES = 3
COVARIATES = (
    Covariate("assay", "input", ("a", "b"), width=3),
    Covariate("age", "input", mean=0.3, deviation=2.0),
    Covariate("donor", "condition", ("x", "y", "z"), width=2),
)


class Cells(NamedTuple):
    """A minibatch: log1p(CP10k), the genes hidden from it, its covariates."""

    x_ng: Tensor
    hidden: GeneSets | None = None
    covariates: Covariates | None = None


def draw_cells(n_cells, n_genes, generator, density=0.2, n_sets=3, with_covariates=True) -> Cells:
    """Cells that express some genes, in float64; none is hidden where `n_sets` is 0."""
    x_ng = torch.rand(n_cells, n_genes, generator=generator, dtype=torch.float64)
    x_ng *= torch.rand(n_cells, n_genes, generator=generator) < density
    hidden = covariates = None
    if n_sets:
        set_n = torch.randint(n_sets, (n_cells,), generator=generator)
        hidden = GeneSets(set_n, torch.rand(n_sets, n_genes, generator=generator) < 0.3)
    if with_covariates:
        level_nk = torch.randint(0, 3, (n_cells, 2), generator=generator)
        number_nj = torch.randn(n_cells, 1, generator=generator, dtype=torch.float64)
        covariates = Covariates(level_nk, number_nj)
    return Cells(x_ng, hidden, covariates)


def narrow(cells: Cells) -> Cells:
    """The same in float32."""
    covariates = cells.covariates
    if covariates is not None:
        covariates = covariates._replace(number_nj=covariates.number_nj.float())
    return cells._replace(x_ng=cells.x_ng.float(), covariates=covariates)


def draw_network(cells: Cells, generator, gain=1.0, groups=(), **knobs) -> Classifier:
    """A network of which nothing is a trivial 0 or 1; `gain` is that of its mask logits."""
    shape = {"n_d": 6, "n_a": 5, "virtual_batch_size": 16, **knobs}
    n_genes = cells.x_ng.shape[1]
    statistics = torch.full((n_genes,), 0.1), torch.full((n_genes,), 0.3)
    covariates = COVARIATES if cells.covariates else ()
    encoder = Encoder(Architecture(**shape), *statistics, generator, covariates, groups)
    network = Classifier(encoder, N_CLASSES, generator).double()
    for name, tensor in network.state_dict().items():
        if name.endswith(("norm.weight", "scale.weight", "running_var")) or "norms" in name:
            tensor.uniform_(0.5, 1.5, generator=generator)
        if name.endswith(("bias", "running_mean", "token_g")):
            tensor.normal_(std=0.3, generator=generator)
    for attend in encoder.attentive:
        for parameter in attend.norm.parameters():
            parameter.data.mul_(gain)
    return network


def classify(network, form, cells: Cells) -> tuple[Tensor, Encoding, Tensor]:
    """Logits (n, c), the encoding, and its masks (s, n, q) by one of the two forms."""
    if form == "dense":
        hidden_ng = None if cells.hidden is None else cells.hidden.to_dense()
        logits_nc, encoding = network(cells.x_ng, hidden_ng, cells.covariates, return_masks=True)
        return logits_nc, encoding, encoding.masks_sng
    logits_nc, encoding = network.classify(from_dense(cells.x_ng), *cells[1:])
    return logits_nc, encoding, stack_masks(network.encoder, encoding)


def stack_masks(encoder: Encoder, encoding: Encoding) -> Tensor:
    """The masks of the sparse form as those of the dense one (s, n, q)."""
    return torch.stack([mask.to_dense(len(encoder.groups)) for mask in encoding.masks])


def weigh(logits_nc: Tensor, encoding: Encoding) -> Tensor:
    """A loss in which every output and the entropy have a part of their own."""
    classes = torch.arange(1, logits_nc.shape[1] + 1, device=logits_nc.device)
    loss = (logits_nc * classes).mean() + logits_nc.square().mean()
    return loss + encoding.decision_snd.square().mean() + 0.1 * encoding.entropy


def run(network, form, cells: Cells) -> dict[str, Tensor]:
    """Outputs, gradients and statistics of a minibatch. Leaves the network as it was."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.zero_grad()
    logits_nc, encoding, masks_snq = classify(network, form, cells)
    loss = weigh(logits_nc, encoding)
    loss.backward()
    results = {
        "loss": loss,
        "logits": logits_nc,
        "decisions": encoding.decision_snd,
        "entropy": encoding.entropy,
        "masks": masks_snq,
    }
    for name, parameter in network.named_parameters():
        gradient = parameter.grad
        results[f"gradient of {name}"] = parameter * 0 if gradient is None else gradient.clone()
    results |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.load_state_dict(state)
    return {name: tensor.detach() for name, tensor in results.items() if tensor.numel()}


def find_differences(results, expected, tolerance) -> dict[str, float]:
    """What is farther from the expected than `tolerance` times the tensor's largest value."""
    found = {}
    for name, tensor in expected.items():
        # What is 0 in exact arithmetic is some 1e-16 of rounding in both forms.
        error = (results[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-5)
        if not error <= tolerance:
            found[name] = error.item()
    return found


@contextmanager
def watch_kinks(network) -> Iterator[list[Tensor]]:
    """Distances from the kinks that a pass of the dense form meets.

    They are those of a logit from its threshold, and of a decision from the 0 of its ReLU.
    """
    architecture = network.encoder.architecture
    power, distances = POWER[architecture.mask_type], []

    def watch_logits(project):
        def watched(logits_nq):
            possible_nq = logits_nq.detach()[logits_nq.amax(-1) > -torch.inf]
            if len(possible_nq):
                shifted_nq = (possible_nq - possible_nq.amax(-1, keepdim=True)) / power
                distances.append((shifted_nq - find_threshold(shifted_nq, power)).abs().min())
            return project(logits_nq)

        return watched

    def watch_decision(module, inputs, features):
        distances.append(features.detach()[:, : architecture.n_d].abs().min())

    projections = [attend.project for attend in network.encoder.attentive]
    for attend in network.encoder.attentive:
        attend.project = watch_logits(attend.project)
    hooks = [one.register_forward_hook(watch_decision) for one in network.encoder.feature]
    yield distances
    for attend, project in zip(network.encoder.attentive, projections, strict=True):
        attend.project = project
    for hook in hooks:
        hook.remove()


def compare_forms(network, cells: Cells, tolerance=1e-10) -> dict[str, Tensor]:
    """Fail where the forms differ, or where a kink is too near for them to have one gradient."""
    with watch_kinks(network) as distances:
        expected = run(network, "dense", cells)
    assert min(distances) > 1e-9, "at a kink: draw again"
    differences = find_differences(run(network, "sparse", cells), expected, tolerance)
    assert not differences, differences
    return expected
