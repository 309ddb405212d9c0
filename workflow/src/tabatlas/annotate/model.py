"""A finished bundle, ready to annotate cells that it never saw."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import anndata as ad
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.annotate.annotation import EMBEDDING, PREFIX, Annotation, CellType
from tabatlas.annotate.genes import GeneMatch, ModelGenes, match_genes
from tabatlas.blocks import iterate_rows
from tabatlas.bundle.verify import ATLAS_GENES, Bundle, verify_bundle
from tabatlas.counts import find_counts, list_matrices
from tabatlas.errors import InputError, ModelError
from tabatlas.finetune.calibrate import calibrate
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.integrate.model import restore_embedder
from tabatlas.stream.query import QuerySource
from tabatlas.tables import read_table
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.train.device import find_device
from tabatlas.train.model import Model as Weights
from tabatlas.train.model import read_model, restore_classifier
from tabatlas.train.predict import predict

logger = logging.getLogger(__name__)

MIN_GENES = 0.05  # own choice; missing genes are no zeros, so that few of them can be enough
N_ROWS = 512  # cells at once
MANY = 100_000  # cells between two words about the progress


class Model:
    """Classifier and embedding of a bundle, with what a query needs to be brought onto them."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        """Restore the networks of a verified bundle on `device`."""
        weights = read_model(bundle.folder)
        check_finite(weights.tensors, bundle)
        generator = torch.Generator()  # what it draws is replaced
        embedding = Weights(bundle.read("embedding.json"), weights.genes, weights.tensors)
        self.bundle, self.device = bundle, device
        self.classifier = restore_classifier(weights, generator).to(device)
        self.embedder = restore_embedder(embedding).to(device).eval()
        self.covariates = weights.covariates
        self.genes = read_genes(weights, bundle)
        self.types = read_types(bundle)
        self.calibration = bundle.read("calibration.json")
        self.typical = Typicality.read(weights.tensors, self.calibration).to(device)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Verify and load the bundle in the folder `path`.

        `device` is "auto", "cpu" or "cuda". Raises `ModelError` or `IntegrityError` for what is no
        bundle, damaged or of another format, `UsageError` for a GPU that is not there.
        """
        where = find_device(device)
        return cls(verify_bundle(Path(path)), where)

    def annotate(
        self, adata: ad.AnnData, layer: str | None = None, min_genes: float = MIN_GENES
    ) -> ad.AnnData:
        """Add labels to `adata`, which may be backed by a file, and return it.

        Adds obs `tabatlas_label`, `_ontology_term_id`, `_confidence`, `_label_unfiltered` and
        `_status`, obsm `X_tabatlas` and uns `tabatlas`. `layer` names the raw counts ("X", "raw/X"
        or a layer) where they shall not be looked for; `min_genes` is the least share of the
        model's genes that must be there. Raises `InputError` and its kinds.
        """
        matrices = list_matrices(adata)
        if not adata.n_obs:
            raise InputError("the query holds no cells.")
        if adata.isbacked and adata.is_view:
            raise InputError(
                "the query is a part of a backed AnnData; call its `to_memory()` first."
            )
        place = find_counts(matrices, layer)
        var = adata.raw.var if place == "raw/X" else adata.var
        blocks = iterate_rows(matrices[place], N_ROWS)
        match = self.match(var, min_genes, "query")
        found = self.label_cells(blocks, match, adata.n_obs)
        for name, values in found.describe(self.types).items():
            adata.obs[name] = values
        adata.obsm[EMBEDDING] = found.place_nz
        adata.uns[PREFIX] = self.describe(match, place)
        return adata

    def match(self, var: pd.DataFrame, min_genes: float, place: str) -> GeneMatch:
        """Find the model's genes among those of a query, and say how."""
        match = match_genes(var, self.genes, min_genes, place)
        logger.info(
            "%s: %d of the model's %d genes (%.1f %%), by %s in `%s` of var; what is not there is "
            "missing, not zero",
            place,
            match.n_found,
            match.n_genes,
            100 * match.share,
            {"ensembl": "Ensembl id"}.get(match.kind, match.kind),
            match.column,
        )
        return match

    def label_cells(
        self, blocks: Iterable[sp.csr_matrix], match: GeneMatch, n_cells: int
    ) -> Annotation:
        """Annotate `n_cells` cells that come as blocks of counts (cells, genes of the query)."""
        source = QuerySource(blocks, match.genes, self.covariates)
        presence_mg = source.presence.to(self.device)
        found = Annotation.allocate(n_cells, self.embedder.mean.out_features)
        done = 0
        for minibatch, outputs in predict(self.forward, source.iterate(), presence_mg):
            found.fill(done, self.judge(count_molecules(minibatch), *outputs))
            done += len(minibatch)
            if done // MANY > (done - len(minibatch)) // MANY:
                logger.info("%d of %d cells", done, n_cells)
        assert done == n_cells, f"{done} of {n_cells} cells came"
        return found

    def forward(
        self, x: Entries, missing: GeneSets, covariates: Covariates
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, c), typicality (n,), places in the embedding (n, z)."""
        logits_nc, _ = self.classifier.classify(x, missing, covariates)
        typicality_n = self.typical.measure(x, missing, logits_nc)
        return logits_nc, typicality_n, self.embedder(x, missing)[0]

    def judge(
        self, counts_n: Tensor, logits_nc: Tensor, typicality_n: Tensor, place_nz: Tensor
    ) -> Annotation:
        """Class, confidence and status of the cells of a minibatch."""
        counts_n, logits_nc, typicality_n, place_nz = (
            values.cpu().numpy()
            for values in (counts_n, logits_nc.float(), typicality_n, place_nz.float())
        )
        probability_nc = calibrate(logits_nc, self.calibration["temperature"])
        status_n = self.typical.judge(typicality_n, counts_n)
        return Annotation(
            probability_nc.argmax(axis=1),
            self.typical.trust(probability_nc.max(axis=1), typicality_n),
            pd.Categorical(status_n, names.STATUSES).codes,
            place_nz,
        )

    def describe(self, match: GeneMatch, place: str) -> dict[str, Any]:
        """What uns says: the model, and what of the query it used."""
        return {
            "model": self.bundle.title,
            "organism": self.genes.organism,
            "counts": place,
            "gene_ids": match.kind,
            "gene_column": match.column,
            "n_genes": match.n_genes,
            "n_genes_found": match.n_found,
            **self.calibration,
        }


def read_genes(weights: Weights, bundle: Bundle) -> ModelGenes:
    """The genes of a bundle: those of the network, and all of the atlas."""
    own, atlas = weights.genes, read_table(bundle.folder / ATLAS_GENES)
    ids = (pd.Index(table[names.FEATURE_ID]) for table in (own, atlas))
    return ModelGenes(weights.about["organism"], *ids)


def read_types(bundle: Bundle) -> list[CellType]:
    """The classes of a bundle, in the order of its logits."""
    stored = bundle.read("labels.json")
    return [CellType(one["label"], one["ontology_term_id"]) for one in stored]


def check_finite(tensors: dict[str, Tensor], bundle: Bundle) -> None:
    """Raise `ModelError` for weights that are no numbers."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"{bundle.folder}: the weights `{name}` hold NaN or infinite values: its training "
                "diverged. Use another version of the model."
            )
