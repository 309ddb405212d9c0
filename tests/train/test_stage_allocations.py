"""No stage that trains or predicts holds anything of cells × genes."""

import numpy as np
import pytest
import torch

from allocations import watch_allocations
from tabatlas.finetune.predictions import judge_inputs
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.integrate.task import ConditionalCounts
from tabatlas.pretrain.task import MaskedGenes
from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet import tiles
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder
from tabatlas.train.predict import predict

# So large that the weights, and masks of some hundred genes, stay far below cells × genes.
N_CELLS, N_GENES, N_CLASSES = 1024, 4096, 5


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def minibatch(generator) -> Minibatch:
    expressed_ng = torch.rand(N_CELLS, N_GENES, generator=generator) < 0.05
    row, gene = expressed_ng.nonzero(as_tuple=True)
    count = torch.randint(1, 9, (len(gene),), generator=generator).float()
    length_n = torch.bincount(row, minlength=N_CELLS)
    return Minibatch(
        indptr=torch.nn.functional.pad(length_n.cumsum(0), (1, 0)),
        gene=gene.short(),
        count=count,
        total_n=torch.full((N_CELLS,), 2000),
        dataset=torch.randint(3, (N_CELLS,), generator=generator),
        label=torch.randint(N_CLASSES, (N_CELLS,), generator=generator),
        level=torch.zeros(N_CELLS, 0, dtype=torch.int64),
        number=torch.zeros(N_CELLS, 0),
        joinid=torch.arange(N_CELLS),
    )


@pytest.fixture
def presence_mg(generator):
    return torch.rand(3, N_GENES, generator=generator) < 0.8


@pytest.fixture
def encoder(generator) -> Encoder:
    architecture = Architecture(n_d=8, n_a=8, n_steps=2, momentum=1.0)
    encoder = Encoder(architecture, torch.zeros(N_GENES), torch.ones(N_GENES), generator)
    for attentive in encoder.attentive:  # untrained masks are flat: all genes
        torch.nn.init.ones_(attentive.norm.weight)
    return encoder


@pytest.fixture(params=["pretrain", "finetune", "integrate"])
def task(request, encoder, presence_mg, generator):
    architecture, statistics = encoder.architecture, (torch.zeros(N_GENES), torch.ones(N_GENES))
    if request.param == "pretrain":
        decoder = Decoder(architecture, *statistics, generator)
        return MaskedGenes(encoder, decoder, presence_mg, None, 0.5, 0.1, 1e-4)
    if request.param == "finetune":
        return make_classifier(encoder, presence_mg, generator)
    share_g = torch.full((N_GENES,), 1 / N_GENES)
    parts = Embedder(encoder, 4, generator), CountDecoder(4, (), 8, share_g, generator)
    return ConditionalCounts(*parts, presence_mg, None, None, N_CELLS, 0.2, 0.1, 1.0)


def make_classifier(encoder, presence_mg, generator) -> CellTypes:
    classifier, ones_c = Classifier(encoder, N_CLASSES, generator), torch.ones(N_CLASSES)
    return CellTypes(classifier, presence_mg, ones_c, ones_c, None, None, N_CELLS, 0.2, 0.1, 1e-4)


def measure_loss(task, minibatch, generator):
    inputs = task.draw(minibatch, generator)
    return task.loss(inputs, task.sizes(inputs))


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
    task = make_classifier(encoder, presence_mg, generator)
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
