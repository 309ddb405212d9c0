"""The stage: files in, files out. Bad files stand in tests/bad_input."""

import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from foreign import make_foreign, normalize, write_foreign
from tabatlas import blocks, names
from tabatlas.counts import read_counts
from tabatlas.errors import CountsError, InputError
from tabatlas.fetch import stage
from tabatlas.fetch.isolate import call_isolated
from tabatlas.fetch.settings import DatasetRow, FetchSettings
from tabatlas.provenance import digest_file


class Fetch:
    """One call of the stage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.cells, self.facts = self.out / "d.h5ad", self.out / "d.json"

    def __call__(self, path: Path | str, **row: object) -> None:
        (self.folder / "row.json").write_text(
            json.dumps({"dataset_id": "d", "path": str(path), **row})
        )
        (self.folder / "settings.json").write_text("{}")
        sources = [path] if isinstance(path, Path) else []
        stage.run(
            self.folder / "row.json",
            self.folder / "settings.json",
            sources,
            self.cells,
            self.facts,
        )

    def left(self) -> list[Path]:
        """What stands in the results."""
        return list(self.out.rglob("*"))


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    return Fetch(tmp_path)


def standardize(path: Path, **row: object) -> tuple[ad.AnnData, dict[str, object]]:
    """The same without a process of its own."""
    about = DatasetRow.parse({"dataset_id": "d", "path": str(path), **row}, "row")
    cells = path.with_name("standardized.h5ad")
    found = stage.convert_file(path, about, FetchSettings(), cells)
    return read_counts(cells), found


def test_source_is_written_with_what_was_found(
    fetch: Fetch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adata = make_foreign(cell_type=["B cell", "mine"] * 4, donor_id=["p1", "p2"] * 4)
    path = write_foreign(tmp_path / "a.h5ad", adata)
    with caplog.at_level(logging.INFO):
        fetch(path, sha256=digest_file(path))
    source = read_counts(fetch.cells)
    assert (source.X != adata.X).nnz == 0
    assert source.X.dtype == np.float32
    assert source.obs_names[0] == "d:BC0"
    assert source.uns[names.ORGANISM] == "Homo sapiens"
    facts = json.loads(fetch.facts.read_text())
    assert facts == {
        "dataset_id": "d",
        "source": str(path),
        "sha256": digest_file(path),
        "organism": "Homo sapiens",
        "counts": "X",
        "gene_ids": "ensembl",
        "n_cells": 8,
        "n_genes": 12,
        "n_other_features": 0,
        "n_mapped": 12,
        "n_unmapped": 0,
        "n_merged": 0,
        "n_labelled": 8,
        "labels": {"B cell": 4, "mine": 4},
        "unmapped_labels": ["mine"],
        "n_donors": 2,
        "n_batches": 2,
    }
    found, lost = caplog.messages
    assert found == (
        "d: 8 cells, counts in X, ensembl ids: 12 of 12 genes known, 8 cells labelled, 2 donors"
    )
    assert lost.startswith("d: labels without a Cell Ontology term keep their own name: mine")


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.h5ad", make_foreign(cell_type=["B", "T"] * 4))
    row = DatasetRow(dataset_id="d", path=str(path))
    copies = [tmp_path / "1.h5ad", tmp_path / "2.h5ad"]
    found = [stage.convert_file(path, row, FetchSettings(), copy) for copy in copies]
    assert found[0] == found[1]
    assert copies[0].read_bytes() == copies[1].read_bytes()


@pytest.mark.parametrize("before", [False, True])
def test_error_leaves_nothing_new_under_a_final_name(
    fetch: Fetch, tmp_path: Path, before: bool
) -> None:
    path = tmp_path / "a.h5ad"
    if before:
        fetch(write_foreign(path))
    kept = {one: one.read_bytes() for one in fetch.left()}
    write_foreign(path, normalize(make_foreign()))
    with pytest.raises(CountsError, match=r"a.h5ad: no raw counts: X holds fractions"):
        fetch(path)
    assert {one: one.read_bytes() for one in fetch.left()} == kept


# within a file


def test_genes_of_raw_are_those_of_the_counts(tmp_path: Path) -> None:
    adata = make_foreign()
    chosen = normalize(adata)[:, :5].copy()
    chosen.raw = adata
    source, facts = standardize(write_foreign(tmp_path / "a.h5ad", chosen))
    assert (facts["counts"], facts["n_genes"]) == ("raw/X", 12)
    assert source.var[names.FEATURE_ID].tolist() == adata.var_names.tolist()


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_neither_the_form_nor_the_size_of_blocks_changes_a_byte(
    form: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = make_foreign()
    adata.var["feature_types"] = ["Gene Expression"] * 9 + ["Antibody Capture"] * 3
    standardize(write_foreign(tmp_path / "a.h5ad", adata))
    whole = digest_file(tmp_path / "standardized.h5ad")
    monkeypatch.setattr(blocks, "BLOCK", 5)
    adata.X = form(adata.X.toarray())
    standardize(write_foreign(tmp_path / "a.h5ad", adata))
    assert digest_file(tmp_path / "standardized.h5ad") == whole


def test_what_was_lost_is_counted(tmp_path: Path) -> None:
    adata = make_foreign()
    own = list(adata.var_names)
    adata.var_names = ["GFP", f"{own[2]}.4", *own[2:]]
    source, facts = standardize(write_foreign(tmp_path / "a.h5ad", adata))
    assert (facts["n_mapped"], facts["n_unmapped"], facts["n_merged"]) == (11, 1, 1)
    assert source.n_vars == 12


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_categories_as_anndata_0_7_wrote_them_are_read(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.attrs["encoding-version"] = "0.1.0"
        obs.attrs["column-order"] = ["cell_type"]
        obs["cell_type"] = np.array([0, 1] * 4, dtype=np.int8)
        obs["__categories/cell_type"] = ["B cell", "T cell"]
        obs["cell_type"].attrs["categories"] = obs["__categories/cell_type"].ref
    source, _ = standardize(path)
    assert source.obs[names.CELL_TYPE].tolist() == ["B cell", "T cell"] * 4


def read_flipped(whole: Path, n_flips: int) -> int:
    """Read a file with a bit flipped, `n_flips` times; how often it was refused."""
    content, path, refused = whole.read_bytes(), whole.with_name("flipped.h5ad"), 0
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content) * 8, n_flips, replace=False):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        try:
            standardize(path)
        except InputError:
            refused += 1
    return refused


def test_flipped_bit_is_one_clear_error_or_none(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.h5ad", make_foreign(cell_type=["B", "T"] * 4))
    assert call_isolated("a.h5ad", 300, read_flipped, path, 40)


# over the network


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of `/short/…` it sends less than it says."""

    def do_GET(self) -> None:
        if self.path.startswith("/short/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A server of the test's folder; gives the URL of a name in it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
    server.shutdown()
    server.server_close()


def test_url_is_downloaded_verified_and_read(
    fetch: Fetch, tmp_path: Path, serve: Callable[[str], str]
) -> None:
    path = write_foreign(tmp_path / "a.h5ad")
    fetch(serve("a.h5ad"), sha256=digest_file(path))
    assert read_counts(fetch.cells).n_obs == 8
    assert sorted(one.name for one in fetch.left()) == ["d.h5ad", "d.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.h5ad", "cannot be fetched .*404"),
        ("short/a.h5ad", "1000 of 1000000 bytes came|cannot be fetched"),
        ("bad.h5ad", "not a readable h5ad"),
        ("mine.rds", "not an h5ad but a file of R"),
        ("with space.h5ad", "cannot be fetched"),
    ],
)
def test_url_that_gives_no_whole_file_is_an_error_that_leaves_nothing(
    fetch: Fetch, tmp_path: Path, serve: Callable[[str], str], name: str, message: str
) -> None:
    for bad in ("bad.h5ad", "mine.rds"):
        (tmp_path / bad).write_bytes(b"no HDF5")
    url = serve(name)
    with pytest.raises(InputError, match=f"^{url}: .*({message})"):
        fetch(url)
    assert not fetch.left()


def test_server_that_does_not_answer_is_an_error(fetch: Fetch) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched .*Check the URL"):
        fetch("http://127.0.0.1:1/a.h5ad")
