"""Guards on the integration of the demo atlas, where `snakemake --cores all` built it."""

import pandas as pd
import pytest

from built_demo import DEMO, NEEDS_DEMO
from tabatlas.provenance import read_json

pytestmark = NEEDS_DEMO


@pytest.fixture(scope="module")
def scores():
    return read_json(DEMO / "integrate" / "scores.json")


def test_the_embedding_integrates_better_than_pca(scores):
    totals = {name: one["total"] for name, one in scores["methods"].items()}
    assert totals["tabnet"] > totals["pca"]


def test_chance_has_the_lowest_total_and_no_biology(scores):
    """Were labels and cells out of step, every method would score as chance does."""
    methods = scores["methods"]
    assert min(methods, key=lambda name: methods[name]["total"]) == "random"
    assert methods["random"]["bio_conservation"] < 0.3 < methods["tabnet"]["bio_conservation"]


def test_every_labeled_cell_is_scored_or_counted_as_left_out(scores):
    n_cells = len(pd.read_parquet(DEMO / "integrate" / "embedding.parquet"))
    assert scores["n_cells"] + sum(scores["left_out"].values()) == n_cells
    assert scores["undefined"] == {}
