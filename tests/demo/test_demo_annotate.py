"""Queries for the demo's bundle: cells keep their types, droplets without a cell get none."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from built_demo import DEMO, NEEDS_DEMO
from tabatlas.annotate import Model
from tabatlas.counts import read_counts
from tabatlas.provenance import read_json

pytestmark = NEEDS_DEMO


@pytest.fixture(scope="module")
def model():
    return Model.load(DEMO / "bundle" / read_json(DEMO / "bundle" / "bundle.json")["path"], "cpu")


@pytest.fixture(scope="module")
def cells():
    """Kept cells of a dataset of the demo, with their own genes."""
    return read_counts(DEMO / "qc" / "demo_a.h5ad")[:400].copy()


def annotate(model, cells, counts):
    """Status, confidence and label of droplets with these counts."""
    index = [str(number) for number in range(len(counts))]
    query = ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), pd.DataFrame(index=index), cells.var.copy()
    )
    return model.annotate(query).obs


def share(obs, status):
    return (obs["tabatlas_status"] == status).mean()


def test_cells_keep_their_types(model, cells):
    """Measured: 0.98 assigned, 0.96 of them as labelled."""
    obs = annotate(model, cells, cells.X.toarray())
    assert share(obs, "assigned") > 0.9
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    known = (truth != "unknown") & (obs["tabatlas_status"] == "assigned").to_numpy()
    assert (obs["tabatlas_label"].astype(str).to_numpy() == truth)[known].mean() > 0.9


def draw_noise(kind, counts, rng):
    """Droplets that hold no cell."""
    depth_n = counts.sum(axis=1, keepdims=True)
    share_g = counts.sum(axis=0) / counts.sum()
    return {
        "nearly empty": lambda: rng.poisson(20 * share_g, size=counts.shape),
        "permuted genes": lambda: np.stack([rng.permutation(row) for row in counts]),
        "uniform": lambda: rng.integers(0, 6, size=counts.shape),
        "flat": lambda: rng.poisson(depth_n * np.ones(counts.shape) / counts.shape[1]),
    }[kind]()


@pytest.mark.parametrize("kind", ["nearly empty", "permuted genes", "uniform", "flat"])
def test_droplets_without_a_cell_get_no_confident_label(model, cells, kind):
    """Measured: one of 1,600 assigned."""
    counts = draw_noise(kind, cells.X.toarray(), np.random.default_rng(0))
    obs = annotate(model, cells, counts)
    assert share(obs, "assigned") < 0.05
    expected = "low_quality" if kind == "nearly empty" else "unknown"
    assert share(obs, expected) > 0.9
