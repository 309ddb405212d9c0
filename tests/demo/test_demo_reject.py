"""Guards on who gets no label in the demo atlas."""

from pathlib import Path

import pytest

from tabatlas.provenance import read_json

FOLDER = Path(__file__).parents[2] / "results" / "demo" / "finetune"

pytestmark = pytest.mark.skipif(
    not (FOLDER.parent / "report" / "index.html").is_file(),
    reason="the demo atlas is not built: `snakemake --cores all`",
)


@pytest.fixture(scope="module")
def sets():
    return {row["cells"]: row for row in read_json(FOLDER / "scores.json")["rejection"]["sets"]}


def test_cells_of_held_out_donors_keep_their_label_also_when_seen_worse(sets):
    assert sets["test"]["assigned"] > 0.95
    assert sets["third_depth"]["assigned"] > 0.85
    assert sets["half_genes"]["assigned"] > 0.85


def test_noise_gets_less_confidence_than_cells(sets):
    assert sets["permuted_genes"]["auroc"] > 0.85
    assert sets["permuted_genes"]["assigned"] < 0.3
