"""Which ranking of genes finds the known markers of real blood cells?

    python tests/benchmarks/explain.py --data DIR [--folder DIR]

Builds the atlas of two studies (trained on Kang et al., explained on pbmc3k) by the workflow and
prints one line of JSON: the AUPRC of PanglaoDB's markers for TabNet's masks, logistic regression,
and the rank tests of scanpy, each beside random genes of equal expression; the masks' stability
over seeds; and the deletion test. All rankings are scored on the same genes; the rank tests and
logistic regression have seen the same training cells.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow import ROOT, link_data, print_line, run_workflow

from panglao import REFERENCE, write_markers
from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.explain.markers import match_markers, score_markers
from tabatlas.explain.settings import ExplainSettings
from tabatlas.provenance import read_json
from tabatlas.stream.packed import PackedSource

OURS = ("weighted", "plain")


def main() -> None:
    """Build, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real cells")
    parser.add_argument("--folder", type=Path, help="where to build; kept and used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, print_line() as found:
        folder = given.folder or Path(temporary)
        results = build_atlas(given.data.resolve(), folder)
        found |= compare_rankings(results, folder / "markers.tsv")


def build_atlas(data: Path, folder: Path) -> Path:
    """Run the workflow up to the explanation; returns the folder of results."""
    link_data(data, folder)
    write_markers(data / REFERENCE, folder / "markers.tsv")
    results = Path("results") / "two_studies"
    config = ROOT / "tests" / "real" / "two_studies.yaml"
    run_workflow(folder, config, [results / "explain" / "scores.json"])
    return folder / results


def compare_rankings(results: Path, markers: Path) -> dict[str, object]:
    """All methods' scores, as `scores.json` has those of ours."""
    found = read_json(results / "explain" / "scores.json")
    classes = read_json(results / "finetune" / "labels.json")
    labels = [one["label"] for one in classes]
    types = pd.read_parquet(results / "explain" / "types.parquet")
    genes = pd.read_parquet(results / "finetune" / "genes.parquet")[names.FEATURE_ID]

    def spread(column: str) -> np.ndarray:
        table = types.pivot(index=names.CELL_TYPE, columns="gene", values=column)
        return table.reindex(labels, columns=range(len(genes))).fillna(0).to_numpy()

    coefficient_cg = spread("logistic_regression")
    rankings = {name: spread(name) for name in OURS}
    rankings |= {
        "logistic_regression": coefficient_cg,
        "logistic_regression_unsigned": np.abs(coefficient_cg),
    }
    rankings |= rank_by_tests(results / "pack" / "manifest.json", labels)
    table = pd.read_csv(markers, sep="\t", dtype=str, keep_default_na=False)
    known = match_markers(table, classes, genes, "Homo sapiens", str(markers))
    expression_cg = spread("expression")
    per_type, overall = score_markers(
        rankings, known.is_marker_cg, expression_cg > 0, expression_cg, ExplainSettings()
    )
    scored = [one["label"] for one, row in zip(classes, per_type, strict=True) if row]
    return {
        "benchmark": "explain",
        "atlas": "two_studies",
        "n_cells": found["n_cells"],
        "types": scored,
        "markers": overall,
        "per_type": {
            one["label"]: {name: row["methods"][name]["auprc"] for name in rankings}
            for one, row in zip(classes, per_type, strict=True)
            if row
        },
        "stability": found["stability"],
        "deletion": found["deletion"]["mean"],
        "selection": found["selection"],
    }


def rank_by_tests(pack: Path, labels: list[str]) -> dict[str, np.ndarray]:
    """Scores of scanpy's tests of each type against the rest, on the training cells (c, g)."""
    source = PackedSource(pack, "train", labels)
    minibatch = source.read(source.keep_labeled())
    cells = log1p_cp10k(minibatch.to_csr(source.n_genes), minibatch.total_n.numpy())
    label = pd.Categorical.from_codes(minibatch.label.numpy(), labels)
    adata = ad.AnnData(cells, obs=pd.DataFrame({"label": label}, index=map(str, range(len(label)))))
    rankings = {}
    for method in ("wilcoxon", "t-test"):
        sc.tl.rank_genes_groups(adata, "label", method=method)
        ranked = adata.uns["rank_genes_groups"]
        scores_cg = np.zeros((len(labels), source.n_genes))
        for number, name in enumerate(labels):
            scores_cg[number, ranked["names"][name].astype(int)] = ranked["scores"][name]
        rankings[f"scanpy {method}"] = scores_cg
    return rankings


if __name__ == "__main__":
    main()
