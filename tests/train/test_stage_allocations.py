"""No stage that trains or predicts holds anything of cells × genes."""

import numpy as np
import pytest
import torch

from allocations import watch_allocations
from tabatlas.finetune.predictions import judge_inputs
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality
from tabatlas.integrate.model import Embedder
from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet import tiles
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.encoder import Encoder
from tabatlas.train.predict import predict
from three_tasks import N_CLASSES, STAGES, draw_minibatch, draw_presence, make_task, measure_loss

# So large that the weights, and masks of some hundred genes, stay far below cells × genes.
N_CELLS, N_GENES = 1024, 4096


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def minibatch(generator) -> Minibatch:
    return draw_minibatch(N_CELLS, N_GENES, generator)


@pytest.fixture
def presence_mg(generator):
    return draw_presence(N_GENES, generator)


@pytest.fixture
def encoder(generator) -> Encoder:
    architecture = Architecture(n_d=8, n_a=8, n_steps=2, momentum=1.0)
    encoder = Encoder(architecture, torch.zeros(N_GENES), torch.ones(N_GENES), generator)
    for attentive in encoder.attentive:  # untrained masks are flat: all genes
        torch.nn.init.ones_(attentive.norm.weight)
    return encoder


@pytest.fixture(params=STAGES)
def task(request, encoder, presence_mg, generator):
    return make_task(request.param, encoder, presence_mg, generator)


def check(seen):
    assert seen.largest < N_CELLS * N_GENES // 2, seen
    # A byte for each would already be too much.
    assert seen.numpy_bytes < N_CELLS * N_GENES, seen


def test_a_step_of_training_allocates_no_cells_times_genes(task, minibatch, generator, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 20)
    task.model.train()
    for _ in range(2):  # the first time compiles the loops
        with watch_allocations() as seen:
            measure_loss(task, minibatch, generator).backward()
    check(seen)


def test_a_tile_as_large_as_all_cells_is_seen(task, minibatch, generator, monkeypatch):
    """Otherwise the test above would show nothing."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 40)
    with watch_allocations() as seen:
        measure_loss(task, minibatch, generator)
    assert (seen.largest >= N_CELLS * N_GENES) == (not isinstance(task, CellTypes))


def test_prediction_allocates_no_cells_times_genes(encoder, presence_mg, minibatch, generator):
    """As `finetune` judges cells, and `annotate` too, which embeds them with it."""
    task = make_task("finetune", encoder, presence_mg, generator)
    profile_cg = torch.rand(N_CLASSES, N_GENES, generator=generator)
    rule, embedder = Typicality(profile_cg, 0.1, 0.0, 1), Embedder(encoder, 4, generator)
    # Running statistics: by those of a new network masks are flat.
    measure_loss(task, minibatch, generator)
    task.model.eval()

    def forward(x, missing, covariates):
        judged = judge_inputs(task, rule, x, missing, covariates)
        return *judged, embedder(x, missing)[0]

    for _ in range(2):
        with watch_allocations() as seen:
            ((_, found),) = predict(forward, [minibatch], presence_mg)
    check(seen)
    assert all(np.isfinite(one).all() for one in found)
