"""The README's section "Your own atlas", followed to the letter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from foreign import human_genes
from tabatlas import names

ROOT = Path(__file__).parents[2]
N_GENES = 300
TYPES = ("CD14 Mono", "B cell", "T cell")


def make_study(seed: int, n_cells: int) -> ad.AnnData:
    """Cells of three types, each with forty genes of its own; `number` is the type."""
    rng = np.random.default_rng(seed)
    number_n = rng.integers(len(TYPES), size=n_cells)
    rate_ng = rng.gamma(2, 0.5, size=N_GENES) * np.ones((n_cells, 1))
    for number in range(len(TYPES)):
        rate_ng[number_n == number, 40 * number : 40 * (number + 1)] *= 6
    obs = pd.DataFrame({"number": number_n}, index=[f"cell{one}" for one in range(n_cells)])
    genes = human_genes(N_GENES)
    var = pd.DataFrame({"symbol": genes[names.FEATURE_NAME].to_numpy()}, index=genes.index)
    return ad.AnnData(rng.poisson(rate_ng).astype(np.float32), obs, var.rename_axis(None))


def write_studies(folder: Path) -> None:
    """The files that the README speaks of, with the columns that it names."""
    folder.mkdir()
    smith, jones, query = (make_study(seed, n) for seed, n in enumerate((300, 200, 150)))
    smith.obs["cell_type"] = np.array(TYPES)[smith.obs.pop("number")]
    smith.obs["patient"] = [f"p{one % 5}" for one in range(smith.n_obs)]
    smith.obs["library"] = smith.obs["patient"]
    jones.obs["annotation"] = np.array([*TYPES, "doublet"])[jones.obs.pop("number")]
    jones.obs.iloc[:10, jones.obs.columns.get_loc("annotation")] = "doublet"
    jones.var_names = jones.var.pop("symbol").to_numpy()
    query.obs["note"] = "mine"
    for name, adata in (("smith", smith), ("jones", jones), ("query", query)):
        adata.write_h5ad(folder / f"{name}.h5ad")


def read_steps() -> list[str]:
    """The commands of the section."""
    text = (ROOT / "README.md").read_text()
    return re.findall(r"<!-- atlas -->\n```bash\n(.*?)```", text, re.S)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder in which all steps were taken."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "workflow", "profiles", "config", "envs"):
        (folder / name).symlink_to(ROOT / name)
    write_studies(folder / "data")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "workflow" / "src")}
    for step in read_steps():
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"{step}\n{ended.stdout}\n{ended.stderr}"
    return folder


def test_there_are_five_steps():
    assert len(read_steps()) == 5


def test_the_steps_lead_to_a_report_a_bundle_and_an_annotated_query(done):
    assert (done / "results" / "my_atlas" / "report" / "index.html").is_file()
    assert len(list((done / "results" / "my_atlas" / "bundle").glob("my_atlas@*"))) == 1
    found = ad.read_h5ad(done / "annotated.h5ad")
    assert found.n_obs == 150
    assert set(found.obs["note"]) == {"mine"}
    assert "X_tabatlas" in found.obsm


def test_the_query_gets_the_labels_that_it_should(done):
    found = ad.read_h5ad(done / "annotated.h5ad").obs
    named = {"CD14 Mono": "classical monocyte", "B cell": "B cell", "T cell": "T cell"}
    truth = found["number"].map(dict(enumerate(TYPES))).map(named).astype(str)
    label = found["tabatlas_label"].astype(str)
    assigned = label != "unknown"
    assert assigned.mean() > 0.9
    assert (label == truth)[assigned].mean() > 0.95
