"""A small atlas with a screen whose doubles are the sums of their singles, up to its encoder."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from small_atlas import Atlas
from synthetic import make_experiment, make_normalized, write_normalized
from tabatlas import names
from tabatlas.genes import PROTEIN_CODING, load_gene_table
from tabatlas.pretrain import stage as pretrain

N_GENES, N_SINGLES, N_CELLS = 60, 12, 40
ACTIVATION = "CRISPR activation screen"


def choose_genes() -> pd.DataFrame:
    """Real genes, so that the names of targets are found: feature ids, column `feature_name`."""
    table = load_gene_table("Homo sapiens")
    coding = table[table[names.FEATURE_TYPE] == PROTEIN_CODING]
    clear = ~coding[names.FEATURE_NAME].duplicated(keep=False)
    clear &= ~coding[names.FEATURE_NAME].str.startswith("ENSG")
    return coding[clear].head(N_GENES)


def list_perturbations() -> list[str]:
    """Twelve singles on the first genes, and five doubles of them."""
    singles = choose_genes()[names.FEATURE_NAME].tolist()[:N_SINGLES]
    doubles = [" || ".join(sorted(singles[2 * n : 2 * n + 2])) for n in range(5)]
    return singles + doubles


def draw_cells(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Counts (n, g) and perturbation of each cell; a single changes six genes of its own."""
    symbols = choose_genes()[names.FEATURE_NAME].tolist()
    base = rng.uniform(2, 4, N_GENES)
    effects = {one: np.zeros(N_GENES) for one in symbols[:N_SINGLES]}
    for effect in effects.values():
        effect[rng.choice(np.arange(N_SINGLES, N_GENES), 6, replace=False)] = rng.normal(0, 1.2, 6)
    ids = [names.NOT_APPLICABLE] * (2 * N_CELLS)
    ids += [one for one in list_perturbations() for _ in range(N_CELLS)]
    rates = [base + sum(effects[t] for t in one.split(" || ") if t in effects) for one in ids]
    return rng.poisson(np.exp(np.stack(rates))), ids


def make_screen(path: Path, dataset_id: str = "screen") -> Path:
    """A normalized h5ad of a screen."""
    counts, ids = draw_cells(np.random.default_rng(0))
    genes = choose_genes()
    adata = make_normalized(path, dataset_id, len(ids), genes=list(genes.index), n_donors=1)
    adata.X = sp.csr_matrix(counts.astype(np.int32))
    adata.obs[names.TOTAL_N] = counts.sum(axis=1).astype(np.int64)
    strategy = [names.CONTROL if one == names.NOT_APPLICABLE else ACTIVATION for one in ids]
    adata.obs[names.PERTURBATION_ID] = pd.Categorical(ids)
    adata.obs[names.PERTURBATION_STRATEGY] = pd.Categorical(strategy)
    adata.obs[names.TISSUE] = pd.Categorical(["line"] * len(ids))
    adata.obs[names.COLLECTION_ID] = pd.Categorical([dataset_id] * len(ids))
    write_normalized(adata, path)
    return path


def make_foreign_screen(path: Path, scale: str = "log") -> Path:
    """The same cells as a user's file: counts, log1p(CP10k), or z-scores."""
    counts, ids = draw_cells(np.random.default_rng(0))
    values = counts.astype(np.float32)
    if scale != "counts":
        values = np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))
    if scale == "scaled":
        values = (values - values.mean(axis=0)) / values.std(axis=0)
    written = ["ctrl" if one == "na" else one.replace(" || ", "+") for one in ids]
    obs = pd.DataFrame(
        {"guide": written, "kind": "CRISPRa", "line": ["left", "right"] * (len(ids) // 2)},
        index=[f"cell{number}" for number in range(len(ids))],
    )
    index = choose_genes()[names.FEATURE_NAME].tolist()
    index[-1] = "no such gene"
    path.parent.mkdir(parents=True, exist_ok=True)
    ad.AnnData(X=sp.csr_matrix(values), obs=obs, var=pd.DataFrame(index=index)).write_h5ad(path)
    return path


def make_screen_atlas(folder: Path) -> Atlas:
    """One dataset of blood and one screen, split and packed."""
    genes = list(choose_genes().index)
    blood = folder / "blood.h5ad"
    make_normalized(blood, "blood", 160, genes=genes, density=0.6, n_donors=8)
    sources = [blood, make_screen(folder / "screen.h5ad")]
    make_experiment(folder / "ingest", sources)
    atlas = Atlas(folder)
    atlas.run_split(test_fraction=0.2, validation_fraction=0.2, perturbation_folds=2)
    atlas.run_pack()
    return atlas


def train_encoder(atlas: Atlas, folder: Path, epochs: int = 3) -> Path:
    """A small encoder and decoder."""
    knobs = {"architecture": {"n_d": 8, "n_a": 8, "n_steps": 1}, "epochs": epochs, "threads": 1}
    settings = folder / "pretrain.json"
    settings.write_text(json.dumps(knobs | {"batch_size": 64}))
    pretrain.run(atlas.pack, settings, folder / "checkpoints", folder / "pretrain")
    return folder / "pretrain"
