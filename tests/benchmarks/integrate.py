"""Integration of two real sets, by the workflow, beside Harmony, scVI and Scanorama.

    python tests/benchmarks/integrate.py --data DIR

Prints one JSON line: per set, every method's scores on the same cells. The default knobs of our
stage were chosen on these two sets: the figures compare methods, they do not prove the choice. The
peers come with `pip install -c envs/constraints.txt -e '.[peers]'`; one that is not installed is
printed as not run.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from workflow import print_line, run_workflow

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.experiment import open_experiment
from tabatlas.integrate.baselines import N_COMPONENTS, embed_pca, rank_variable_genes
from tabatlas.integrate.sample import is_labeled
from tabatlas.provenance import read_json
from tabatlas.scores.integration import score_embeddings

SEED = 0
N_PARTS = 10  # random tenths stand for donors, so that every batch trains
# Both sets are published after their own quality control: every cell of theirs is scored.
ALL_CELLS = {
    "min_genes": 0,
    "max_pct_mt": 100.0,
    "mads_counts": 100.0,
    "mads_genes": 100.0,
    "mads_mt": 100.0,
    "doublets": False,
}


@dataclass(frozen=True)
class Cells:
    """The scored cells: variable genes as counts and as log1p(CP10k), batch, type, components."""

    counts: sp.csr_matrix
    x_ng: sp.csr_matrix
    batch_n: np.ndarray
    label_n: np.ndarray
    pca_nd: np.ndarray


def read_mixology(data: Path) -> dict[str, ad.AnnData]:
    """Five batches of up to five cell lines, told apart by genotype; singlets, measured genes."""
    adata = ad.read_h5ad(data / "cellline_mixology_5batch.h5ad")
    adata = adata[adata.obs["demuxlet_cls"] == "SNG"]
    batch_n = adata.obs["batch"].astype(str)
    return {
        batch: adata[batch_n == batch, adata.var[f"in_{batch}"].to_numpy(bool)].copy()
        for batch in sorted(batch_n.unique())
    }


def read_kang(data: Path) -> dict[str, ad.AnnData]:
    """Blood cells with and without interferon: the condition is the batch."""
    return {"kang": ad.read_h5ad(data / "kang_pbmc_ifnb_13type.h5ad")}


SETS: dict[str, Callable[[Path], dict[str, ad.AnnData]]] = {
    "cellline_mixology_5batch": read_mixology,
    "kang_pbmc_ifnb_13type": read_kang,
}


def build_atlas(atlas: str, sources: Mapping[str, ad.AnnData], folder: Path, cores: int) -> Path:
    """Build an atlas up to its integration; returns the folder of its results."""
    rng = np.random.default_rng(SEED)
    rows = []
    for dataset_id, adata in sources.items():
        kept = pd.DataFrame(
            {column: adata.obs[column].astype(str) for column in ("batch", "cell_type")}
        )
        kept["donor_id"] = [f"part{one}" for one in rng.integers(0, N_PARTS, len(kept))]
        path = folder / f"{dataset_id}.h5ad"
        ad.AnnData(X=adata.X, obs=kept, var=adata.var[[]]).write_h5ad(path)
        rows.append({"dataset_id": dataset_id, "path": str(path), "collection": atlas})
    config = {
        "atlas": atlas,
        "datasets": rows,
        "qc": ALL_CELLS,
        "split": {"test_fraction": 0},
        "pack": {"genes": "hvg"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    results = Path("results") / atlas
    wanted = [results / "integrate" / name for name in ("scores.json", "embedding.parquet")]
    run_workflow(folder, "config.json", wanted, cores)
    return folder / results


def read_cells(results: Path) -> Cells:
    """The labeled cells that the stage scored, with the genes that its PCA saw."""
    with open_experiment(results / "ingest" / "manifest.json") as experiment:
        cells = experiment.read_cells([names.CELL_TYPE, names.TOTAL_N])
        cells = cells[is_labeled(cells)]
        counts = experiment.read_counts(cells[names.JOINID].to_numpy())
        shared_g = experiment.read_presence()[np.unique(cells["dataset"])].all(axis=0)
    batch_n = cells[names.BATCH].astype(str).to_numpy()
    total_n = cells[names.TOTAL_N].to_numpy()
    genes = np.flatnonzero(shared_g)
    x_ng = log1p_cp10k(counts, total_n)[:, genes]
    variable = rank_variable_genes(x_ng, batch_n)
    return Cells(
        counts[:, genes[variable]],
        x_ng[:, variable],
        batch_n,
        cells[names.CELL_TYPE].astype(str).to_numpy(),
        embed_pca(counts, total_n, shared_g, batch_n, SEED),
    )


def embed_scvi(cells: Cells) -> np.ndarray:
    """scVI (Lopez et al. 2018) as its tutorial on integration sets it, stopped early."""
    import scvi

    scvi.settings.seed = SEED
    index = np.arange(len(cells.batch_n)).astype(str)
    obs = pd.DataFrame({"batch": cells.batch_n}, index=index)
    adata = ad.AnnData(cells.counts.astype(np.float32), obs=obs)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, n_layers=2, n_latent=30, gene_likelihood="nb")
    model.train(
        accelerator="cpu",
        early_stopping=True,
        enable_progress_bar=False,
        logger=False,
        enable_checkpointing=False,
    )
    return model.get_latent_representation()


def embed_scanorama(cells: Cells) -> np.ndarray:
    """Scanorama (Hie et al. 2019) with its defaults."""
    import scanorama

    batches = np.unique(cells.batch_n)
    genes = [f"gene{number}" for number in range(cells.x_ng.shape[1])]
    parts, _ = scanorama.integrate(
        [cells.x_ng[cells.batch_n == batch] for batch in batches],
        [genes] * len(batches),
        dimred=N_COMPONENTS,
        seed=SEED,
        verbose=0,
    )
    embedding_nd = np.empty((len(cells.batch_n), parts[0].shape[1]), dtype=np.float32)
    for batch, part in zip(batches, parts, strict=True):
        embedding_nd[cells.batch_n == batch] = part
    return embedding_nd


PEERS: dict[str, tuple[str, Callable[[Cells], np.ndarray]]] = {
    "scvi": ("scvi-tools", embed_scvi),
    "scanorama": ("scanorama", embed_scanorama),
}


def score_peers(cells: Cells) -> dict[str, dict[str, Any]]:
    """Scores of the peers that are installed; `not_run` and the reason for the others."""
    found, embeddings = {}, {}
    for peer, (package, embed) in PEERS.items():
        if importlib.util.find_spec(peer) is None:
            found[peer] = {"not_run": f"{package} is not installed: pip install '.[peers]'"}
        else:
            embeddings[peer] = embed(cells)
    return found | score_embeddings(embeddings, cells.pca_nd, cells.batch_n, cells.label_n)


def measure_set(name: str, data: Path, folder: Path, cores: int) -> dict[str, Any]:
    """Scores of all methods and peers on one set."""
    folder.mkdir(parents=True, exist_ok=True)
    results = build_atlas(name, SETS[name](data), folder, cores)
    scores = read_json(results / "integrate" / "scores.json")
    cells = read_cells(results)
    assert len(cells.label_n) == scores["n_cells"]
    scores["methods"] |= score_peers(cells)
    return scores


def main() -> None:
    """Measure the sets; one JSON line on stdout, all else on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS), help="which")
    parser.add_argument("--cores", type=int, default=2, help="cores for the workflow")
    parser.add_argument("--keep", type=Path, help="folder for the atlases; default: none is kept")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `tabatlas.cli` sets it, and why
    with tempfile.TemporaryDirectory() as temporary, print_line() as found:
        folder = (chosen.keep or Path(temporary)).resolve()
        found |= {
            name: measure_set(name, chosen.data.resolve(), folder / name, chosen.cores)
            for name in chosen.sets
        }


if __name__ == "__main__":
    main()
