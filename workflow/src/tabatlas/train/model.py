"""The folder of a model: weights, `config.json` with the architecture, `genes.parquet`.

Later stages take genes and architecture from these files, never from the configuration.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import digest_json, read_json, write_json
from tabatlas.tables import read_table, write_table
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariate
from tabatlas.tabnet.encoder import Encoder
from tabatlas.train.tensors import (
    digest_tensors,
    load_weights,
    pick,
    read_tensors,
    write_tensors,
)

FORMAT = 2
WEIGHTS, CONFIG, GENES = "model.safetensors", "config.json", "genes.parquet"


@dataclass(frozen=True)
class Model:
    """What a model's folder holds; the names of the tensors begin with their part."""

    about: dict[str, Any]
    genes: pd.DataFrame
    tensors: dict[str, Tensor]

    @property
    def digest(self) -> str:
        """Digest of weights and description: who was trained from this model says so by it."""
        return digest_json([self.about, digest_tensors(self.tensors)])

    @property
    def architecture(self) -> Architecture:
        """The architecture that `config.json` holds."""
        stored = self.about["architecture"]
        known = {knob.name for knob in fields(Architecture)}
        if set(stored) != known:
            difference = ", ".join(sorted(known ^ set(stored)))
            raise ModelError(f"{CONFIG}: knobs of another version: {difference}. Train again.")
        return Architecture(**stored)

    @property
    def covariates(self) -> tuple[Covariate, ...]:
        """What the network knows beside the genes."""
        return read_covariates(self.about["covariates"])


def describe_model(
    architecture: Architecture,
    genes: pd.DataFrame,
    covariates: Sequence[Covariate],
    organism: str,
    pack: str,
) -> dict[str, Any]:
    """The part of `config.json` that every model has; `pack` is the digest of its cells."""
    return {
        "format": FORMAT,
        "architecture": asdict(architecture),
        "covariates": [asdict(one) for one in covariates],
        "n_genes": len(genes),
        "genes_digest": digest_genes(genes),
        "organism": organism,
        "pack": pack,
        "input": "log1p of counts per 10,000, scaled by the sum over all atlas genes",
    }


def read_covariates(stored: Sequence[dict[str, Any]]) -> tuple[Covariate, ...]:
    """Covariates from their JSON."""
    return tuple(Covariate(**{**one, "levels": tuple(one["levels"])}) for one in stored)


def digest_genes(genes: pd.DataFrame) -> str:
    """Digest of the ordered gene ids."""
    return digest_json(genes[names.FEATURE_ID].tolist())


def write_model(model: Model, folder: Path) -> None:
    """Write the three files, the weights last."""
    write_json(model.about, folder / CONFIG)
    write_table(model.genes, folder / GENES)
    write_tensors(model.tensors, {}, folder / WEIGHTS)


def read_model(folder: Path) -> Model:
    """Read a model's folder and check that its files belong together."""
    for name in (CONFIG, GENES, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: this file of the model is missing. Train again.")
    about, genes = read_json(folder / CONFIG), read_table(folder / GENES)
    if about.get("format") != FORMAT:
        raise ModelError(
            f"{folder / CONFIG}: model format {about.get('format')}; this version reads {FORMAT}."
        )
    if digest_genes(genes) != about["genes_digest"]:
        raise IntegrityError(f"{folder / GENES}: not the genes of {CONFIG}. Restore both files.")
    return Model(about, genes, read_tensors(folder / WEIGHTS)[0])


def check_pack(model: Model, pack: str, place: Path) -> None:
    """Raise `IntegrityError` unless the model at `place` was trained on the pack of that digest.

    Equal genes are not enough: a pack of another split holds other cells.
    """
    if model.about["pack"] != pack:
        raise IntegrityError(
            f"{place}: trained on another pack than this one. Run pretrain and what follows again."
        )


def gene_statistics(genes: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log1p(CP10k) per gene (g,), (g,)."""
    mean_g, sd_g = (genes[name].to_numpy(dtype=np.float32) for name in ("mean", "sd"))
    return torch.tensor(mean_g), torch.tensor(sd_g)


def build_encoder(
    architecture: Architecture,
    genes: pd.DataFrame,
    covariates: Sequence[Covariate],
    generator: torch.Generator,
) -> Encoder:
    """A freshly initialised encoder over these genes and covariates."""
    return Encoder(architecture, *gene_statistics(genes), generator, covariates)


def restore_encoder(model: Model, generator: torch.Generator) -> Encoder:
    """The encoder of a model's folder, on the CPU."""
    encoder = build_encoder(model.architecture, model.genes, model.covariates, generator)
    load_weights(encoder, pick(model.tensors, "encoder"), "encoder")
    return encoder


def restore_classifier(model: Model, generator: torch.Generator) -> Classifier:
    """The classifier of a fine-tuned model's folder, on the CPU, ready to predict."""
    encoder = build_encoder(model.architecture, model.genes, model.covariates, generator)
    classifier = Classifier(encoder, model.about["n_classes"], generator)
    load_weights(classifier, pick(model.tensors, "classifier"), "classifier")
    return classifier.eval()
