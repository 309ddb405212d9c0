"""Small files of every stage's form; a count tells its dataset, cell and gene.

No generator: `count_of` mixes the three, so that a test knows each value wherever it meets it.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.counts import size_factors
from tabatlas.genes import choose_atlas_genes
from tabatlas.ingest.stage import append, register, seal

HUMAN = "Homo sapiens"


def gene_ids(n_genes: int) -> list[str]:
    """Ids of human protein-coding genes, in genome order."""
    return choose_atlas_genes(names.PROTEIN_CODING, HUMAN)[:n_genes].tolist()


def mix(dataset_id: str, cell_n: np.ndarray, gene_n: np.ndarray) -> np.ndarray:
    """64 mixed bits per (cell, gene) of a dataset (splitmix64)."""
    salt = np.uint64(zlib.crc32(dataset_id.encode()) << 32)
    cell_n, gene_n = np.atleast_1d(cell_n), np.atleast_1d(gene_n)  # scalars warn of overflow
    bits = salt + (cell_n.astype(np.uint64) << np.uint64(16)) + gene_n.astype(np.uint64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def count_of(dataset_id: str, cell_n: np.ndarray, gene_n: np.ndarray) -> np.ndarray:
    """The count, 1 … 1000, that cell `cell_n` has of gene `gene_n` where it has any."""
    return (mix(dataset_id, cell_n, gene_n) % np.uint64(1000)).astype(np.int32) + 1


def make_counts(dataset_id: str, n_cells: int, n_genes: int, density: float) -> sp.csr_matrix:
    """CSR int32 with about `density` of its values stored."""
    cell, gene = (axis.ravel() for axis in np.indices((n_cells, n_genes)))
    chance = (mix(dataset_id, cell, gene) >> np.uint64(11)) / 2.0**53
    stored = chance < density
    cell, gene = cell[stored], gene[stored]
    values = count_of(dataset_id, cell, gene)
    return sp.csr_matrix((values, (cell, gene)), shape=(n_cells, n_genes), dtype=np.int32)


def make_cells(dataset_id: str, n_cells: int, n_donors: int = 2, n_types: int = 3) -> pd.DataFrame:
    """obs of a source: donors in runs, types in turn, no value missing."""
    number = np.arange(n_cells)
    donor = number * n_donors // max(n_cells, 1)
    columns = {
        names.DATASET_ID: [dataset_id] * n_cells,
        names.COLLECTION_ID: ["collection"] * n_cells,
        names.DONOR_ID: [f"donor{one}" for one in donor],
        names.BATCH: [f"{dataset_id}-batch{one}" for one in donor],
        names.CELL_TYPE: [f"type{one % n_types}" for one in number],
        names.CELL_TYPE_ID: [f"CL:{one % n_types:07d}" for one in number],
        names.ASSAY: ["10x 3' v3"] * n_cells,
        names.ASSAY_ID: ["EFO:0009922"] * n_cells,
        names.DISEASE: ["normal"] * n_cells,
        names.DISEASE_ID: ["PATO:0000461"] * n_cells,
        names.TISSUE: ["blood"] * n_cells,
        names.TISSUE_ID: ["UBERON:0000178"] * n_cells,
        names.PERTURBATION_ID: [names.NOT_APPLICABLE] * n_cells,
        names.PERTURBATION_STRATEGY: [names.NO_PERTURBATIONS] * n_cells,
    }
    barcodes = [f"BC{one:06d}" for one in number]
    index = pd.Index([f"{dataset_id}:{barcode}" for barcode in barcodes], name=names.OBS_ID)
    cells = pd.DataFrame(columns, index=index, dtype="category")
    cells[names.BARCODE] = barcodes
    cells[names.N_GENES] = (100 + number % 7).astype(np.int32)
    cells[names.PCT_MT] = (number % 5).astype(np.float32)
    cells[names.DOUBLET_SCORE] = (number % 3 / 10).astype(np.float32)
    return cells


def make_source(
    path: Path,
    dataset_id: str,
    n_cells: int = 60,
    n_genes: int = 40,
    *,
    genes: Sequence[str] | None = None,
    density: float = 0.2,
    organism: str = HUMAN,
    **cells: int,
) -> ad.AnnData:
    """Write a source h5ad, as `fetch` does; `cells` goes to `make_cells`."""
    genes = list(genes or gene_ids(n_genes))
    var = pd.DataFrame(
        {
            names.FEATURE_ID: genes,
            names.FEATURE_NAME: [f"GENE{number}" for number in range(len(genes))],
            names.FEATURE_TYPE: "protein_coding",
        },
        index=genes,
    )
    adata = ad.AnnData(
        X=make_counts(dataset_id, n_cells, len(genes), density).astype(np.float32),
        obs=make_cells(dataset_id, n_cells, **cells),
        var=var,
        uns={names.ORGANISM: organism},
    )
    write_file(adata, path)
    return adata


def make_normalized(
    path: Path,
    dataset_id: str,
    n_cells: int = 60,
    n_genes: int = 40,
    *,
    genes: Sequence[str] | None = None,
    density: float = 0.2,
    organism: str = HUMAN,
    unmeasured: Sequence[int] = (),
    empty_cells: Sequence[int] = (),
    **cells: int,
) -> ad.AnnData:
    """Write a normalized h5ad and, beside it, its facts as JSON, as `normalize` does.

    `unmeasured` genes and `empty_cells` (both by number) hold no count.
    """
    genes = list(genes or gene_ids(n_genes))
    counts = make_counts(dataset_id, n_cells, len(genes), density).tolil()
    counts[:, list(unmeasured)] = 0
    counts[list(empty_cells)] = 0
    measured = ~np.isin(np.arange(len(genes)), unmeasured)
    var = pd.DataFrame(
        {names.FEATURE_NAME: [f"GENE{n}" for n in range(len(genes))], names.MEASURED: measured},
        index=pd.Index(genes, name=names.FEATURE_ID),
    )
    adata = ad.AnnData(
        X=counts.tocsr(),
        obs=make_cells(dataset_id, n_cells, **cells),
        var=var,
        uns={names.ORGANISM: organism},
    )
    adata.obs[names.TOTAL_N] = np.asarray(adata.X.sum(axis=1), dtype=np.int64).ravel()
    adata.obs[names.SIZE_FACTOR] = size_factors(adata.obs[names.TOTAL_N].to_numpy())
    write_normalized(adata, path)
    return adata


def write_normalized(adata: ad.AnnData, path: Path) -> None:
    """Write a normalized AnnData with the facts that belong to it."""
    write_file(adata, path)
    genes, measured = list(adata.var_names), adata.var[names.MEASURED]
    facts = {
        "dataset_id": str(adata.obs[names.DATASET_ID].iloc[0]) if adata.n_obs else path.stem,
        "organism": adata.uns[names.ORGANISM],
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_measured": int(measured.sum()),
        "n_entries": int(adata.X.nnz),
        "total": int(adata.X.sum()),
        "genes_digest": digest(*genes),
        "digest": digest(
            adata.obs.to_csv(),
            *(values.tobytes() for values in (adata.X.indptr, adata.X.indices, adata.X.data)),
            measured.to_numpy().tobytes(),
        ),
        "n_lost_genes": 0,
        "pct_lost_counts": 0.0,
    }
    path.with_suffix(".json").write_text(json.dumps(facts))


def write_file(adata: ad.AnnData, path: Path) -> None:
    """Write an h5ad into a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)


def digest(*parts: str | bytes) -> str:
    """sha256 of texts and bytes."""
    joined = hashlib.sha256()
    for part in parts:
        joined.update(part.encode() if isinstance(part, str) else part)
    return joined.hexdigest()


@dataclass(frozen=True)
class IngestRun:
    """The paths of one run of `ingest` within `folder`, and its three commands."""

    folder: Path
    sources: Sequence[Path]

    @property
    def settings(self) -> Path:
        """settings/ingest.json."""
        return self.folder / "settings.json"

    @property
    def store(self) -> Path:
        """The folder of the experiments."""
        return self.folder / "soma"

    @property
    def registry(self) -> Path:
        """register.json."""
        return self.folder / "register.json"

    @property
    def manifest(self) -> Path:
        """manifest.json."""
        return self.folder / "manifest.json"

    @property
    def facts(self) -> list[Path]:
        """What `normalize` states about each source."""
        return [source.with_suffix(".json") for source in self.sources]

    @property
    def receipts(self) -> list[Path]:
        """What `append` writes for each source."""
        return [self.folder / f"{source.stem}.json" for source in self.sources]

    def choose(self, **settings: object) -> None:
        """Write the settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(json.dumps(settings))

    def register(self) -> None:
        """`tabatlas ingest register`."""
        register(list(self.sources), self.facts, self.settings, self.store, self.registry)

    def append(self, number: int) -> None:
        """`tabatlas ingest append` of one source."""
        source, facts, receipt = (
            paths[number] for paths in (self.sources, self.facts, self.receipts)
        )
        append(source, facts, self.settings, self.registry, receipt)

    def seal(self) -> None:
        """`tabatlas ingest seal`."""
        seal(self.registry, self.receipts, self.manifest)


def make_experiment(folder: Path, sources: Sequence[Path], **settings: object) -> Path:
    """Register, append and seal normalized h5ads within `folder`; return the manifest's path.

    `settings` are those of `ingest`.
    """
    run = IngestRun(folder, sources)
    run.choose(**settings)
    run.register()
    for number in range(len(sources)):
        run.append(number)
    run.seal()
    return run.manifest
