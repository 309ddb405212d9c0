"""The three tasks of training on cells that are drawn, without a pack."""

import torch
from torch import Tensor

from tabatlas.finetune.task import CellTypes
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.integrate.task import ConditionalCounts
from tabatlas.pretrain.task import MaskedGenes
from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariate
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder

STAGES = ("pretrain", "finetune", "integrate")
N_CLASSES = 5
N_DATASETS = 3
COVARIATES = (
    Covariate("assay", "input", ("a", "b"), width=3),
    Covariate("age", "input", mean=0.3, deviation=2.0),
    Covariate("donor", "condition", ("x", "y", "z"), width=2),
)


def draw_minibatch(n_cells: int, n_genes: int, generator: torch.Generator) -> Minibatch:
    """Cells that express a twentieth of the genes, with what `COVARIATES` want to know."""
    expressed_ng = torch.rand(n_cells, n_genes, generator=generator) < 0.05
    row, gene = expressed_ng.nonzero(as_tuple=True)
    count = torch.randint(1, 9, (len(gene),), generator=generator).float()
    length_n = torch.bincount(row, minlength=n_cells)
    return Minibatch(
        indptr=torch.nn.functional.pad(length_n.cumsum(0), (1, 0)),
        gene=gene.short(),
        count=count,
        total_n=torch.full((n_cells,), 2000),
        dataset=torch.randint(N_DATASETS, (n_cells,), generator=generator),
        label=torch.randint(N_CLASSES, (n_cells,), generator=generator),
        level=torch.randint(3, (n_cells, 2), generator=generator),
        number=torch.randn(n_cells, 1, generator=generator),
        joinid=torch.arange(n_cells),
    )


def draw_presence(n_genes: int, generator: torch.Generator) -> Tensor:
    """Which genes each dataset measured (datasets, g)."""
    return torch.rand(N_DATASETS, n_genes, generator=generator) < 0.8


def make_task(stage: str, encoder: Encoder, presence_mg: Tensor, generator: torch.Generator):
    """The task of a stage; it has no cells for validation."""
    architecture, n_genes = encoder.architecture, presence_mg.shape[1]
    if stage == "pretrain":
        statistics = torch.zeros(n_genes), torch.ones(n_genes)
        decoder = Decoder(architecture, *statistics, generator)
        return MaskedGenes(encoder, decoder, presence_mg, None, 0.5, 0.1, 1e-4)
    if stage == "finetune":
        classifier, weight_c = (
            Classifier(encoder, N_CLASSES, generator),
            torch.linspace(0.5, 1.5, N_CLASSES),
        )
        network = classifier, presence_mg, weight_c, weight_c
        return CellTypes(*network, None, None, 1, 0.2, 0.1, 1e-4)
    share_g = torch.full((n_genes,), 1 / n_genes)
    conditions = COVARIATES[::2]  # a decoder of counts has conditions of its own
    decoder = CountDecoder(4, conditions, 8, share_g, generator)
    embedder = Embedder(encoder, 4, generator)
    return ConditionalCounts(embedder, decoder, presence_mg, None, None, 1, 0.2, 0.1, 1.0)


def measure_loss(task, minibatch: Minibatch, generator: torch.Generator) -> Tensor:
    """The loss of a minibatch that is its own only micro-batch."""
    inputs = task.draw(minibatch, generator)
    return task.loss(inputs, task.sizes(inputs))
