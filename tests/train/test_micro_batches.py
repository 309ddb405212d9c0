"""The losses of a minibatch's micro-batches are parts of its loss."""

import pytest
import torch
from torch import nn

from tabatlas.integrate.likelihood import measure_distance
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.reconstruction import sum_errors
from tabatlas.tabnet.sparse import encode
from tabatlas.train.device import seed_generator
from three_tasks import COVARIATES, STAGES, draw_minibatch, draw_presence, make_task

pytestmark = pytest.mark.usefixtures("one_thread")
N_CELLS, N_GENES = 48, 60


@pytest.fixture(params=STAGES)
def task(request):
    """In float64, no weight at zero, and λ so large that the entropy is no small part."""
    generator = seed_generator("cpu", 0)
    architecture = Architecture(n_d=6, n_a=6, n_steps=2, virtual_batch_size=8)
    statistics = torch.full((N_GENES,), 0.1), torch.full((N_GENES,), 0.5)
    encoder = Encoder(architecture, *statistics, generator, COVARIATES)
    task = make_task(request.param, encoder, draw_presence(N_GENES, generator), generator)
    for parameter in task.model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    task.lambda_sparse = 0.3
    task.model.double()
    return task


@pytest.fixture
def inputs(task):
    generator = seed_generator("cpu", 1)
    return widen(task.draw(draw_minibatch(N_CELLS, N_GENES, generator), generator))


def widen(value):
    """Inputs in float64."""
    if isinstance(value, tuple):
        return type(value)(*map(widen, value))
    return value.double() if value.is_floating_point() else value


def cut(value, rows: slice):
    """The inputs of some of the cells."""
    if isinstance(value, Entries):
        return value.slice(rows.start, rows.stop)
    if isinstance(value, GeneSets):
        return value._replace(set_n=value.set_n[rows])
    if isinstance(value, tuple):
        return type(value)(*(cut(one, rows) for one in value))
    return value[rows]


def cut_inputs(inputs, n_parts):
    bounds = [N_CELLS * one // n_parts for one in range(n_parts + 1)]
    for rows in map(slice, bounds, bounds[1:]):
        part = cut(inputs, rows)
        if hasattr(inputs, "count") and torch.is_tensor(inputs.count):  # one for each entry
            first, last = inputs.x.indptr[rows.start], inputs.x.indptr[rows.stop]
            part = part._replace(count=inputs.count[first:last])
        yield part


def step(task, parts):
    """Loss and gradients of a minibatch that comes in parts."""
    sizes = [task.sizes(part) for part in parts]
    totals = [sum(one) for one in zip(*sizes, strict=True)]
    loss = sum(task.loss(part, totals) for part in parts)
    task.model.zero_grad()
    loss.backward()
    return loss.detach(), [one.grad for one in task.model.parameters() if one.grad is not None]


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_parts", [2, 5, N_CELLS])
def test_without_batch_statistics_the_parts_add_up_to_the_loss_of_the_whole(task, inputs, n_parts):
    task.model.eval()
    assert_same(step(task, list(cut_inputs(inputs, n_parts))), step(task, [inputs]))


@pytest.mark.parametrize("n_parts", [2, 3])
def test_with_micro_batches_of_whole_chunks_they_do_in_training_too(task, inputs, n_parts):
    task.model.train()
    assert_same(step(task, list(cut_inputs(inputs, n_parts))), step(task, [inputs]))


def test_the_loss_of_one_micro_batch_is_the_mean_over_its_cells_and_genes(task, inputs):
    """As it was written before there were micro-batches."""
    network = task.model.train()
    found = task.loss(inputs, task.sizes(inputs))
    if hasattr(inputs, "drawn"):
        x, hidden, drawn, covariates = inputs
        encoding = encode(network["encoder"], x, hidden, covariates)
        errors = sum_errors(network["decoder"], encoding.decision_snd, x, drawn)
        expected = errors / drawn.count() + 0.3 * encoding.entropy
    elif hasattr(inputs, "label_n"):
        logits_nc, encoding = network.classify(*inputs[:3])
        loss_n = nn.functional.cross_entropy(logits_nc, inputs.label_n, reduction="none")
        expected = (task.weight_c[inputs.label_n] * loss_n).mean() + 0.3 * encoding.entropy
    else:
        mean_nz, log_variance_nz = network["embedder"](inputs.x, inputs.hidden)
        place_nz = mean_nz + inputs.noise_nz * (0.5 * log_variance_nz).exp()
        counts = Entries(inputs.x.indptr, inputs.x.gene, inputs.count)
        surprise = task.sum_surprise(counts, place_nz, inputs.covariates, inputs.missing)
        distance = measure_distance(mean_nz, log_variance_nz).sum()
        expected = (surprise + distance) / (N_CELLS * N_GENES)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_everything_random_is_drawn_beforehand(task, inputs):
    task.model.eval()
    first, again = (step(task, [inputs]) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    generators = (seed_generator("cpu", 1) for _ in range(2))
    drawn = (widen(task.draw(draw_minibatch(N_CELLS, N_GENES, one), one)) for one in generators)
    for one in drawn:
        torch.testing.assert_close(one, inputs, rtol=0, atol=0)
