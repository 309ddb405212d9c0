"""An experiment that is not what was sealed gives no other cells."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from handmade import GAPS, make_gappy, make_obs, write_entries
from small_atlas import N_GENES, Atlas
from synthetic import gene_ids, make_counts
from tabatlas import names
from tabatlas.errors import GeneMismatchError, IntegrityError
from tabatlas.experiment import check_sealed, open_experiment
from tabatlas.pack import stage as pack
from tabatlas.provenance import read_json
from tabatlas.stream.soma import SomaSource

GENES = pd.Series(gene_ids(40))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Atlas:
    """An atlas without a fault."""
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    return make_gappy(tmp_path_factory.mktemp("sound"), counts)


def read_soma(
    manifest: Path, joinids: np.ndarray = GAPS, genes: pd.Series = GENES
) -> sp.csr_matrix:
    with open_experiment(manifest) as experiment:
        source = SomaSource(experiment, joinids, genes)
        return source.read(np.arange(len(joinids))).to_csr(len(genes))


def test_a_cell_that_the_experiment_lacks_is_an_error(sound):
    with pytest.raises(IntegrityError, match=r"2 of 60 cells .*first: soma_joinid 4\)\. Run"):
        read_soma(sound.manifest, np.where(GAPS < 12, GAPS + 1, GAPS))


# Which entries of a row are written, and at which joinid.
PIECES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "an obs row without X": lambda row, gene: (row, row != GAPS[7]),
    "half a row": lambda row, gene: (row, (row != GAPS[7]) | (gene < 20)),
    "an X row without obs": lambda row, gene: (np.where(row == GAPS[7], row + 1, row), row >= 0),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("sealed", ["all", "what is there"])
def test_cells_that_x_and_obs_do_not_share_are_an_error(tmp_path, pieces, sealed):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    coo = counts.tocoo()
    row, kept = pieces(GAPS[coo.row], coo.col)
    about = {} if sealed == "all" else {"n_entries": int(kept.sum())}
    places = np.flatnonzero(kept)
    atlas = make_gappy(tmp_path, counts, pieces=[(row[kept], places)], **about)
    said = rf"counts in X, {counts.nnz} were sealed|soma_joinid {GAPS[7]}: \d+ molecules in X"
    for read in (lambda: read_soma(atlas.manifest), lambda: atlas.run_pack()):
        with pytest.raises(IntegrityError, match=rf"({said}).*delete it and run"):
            read()
    assert not atlas.pack.exists()


def test_other_cells_than_a_damaged_one_are_read(tmp_path):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    row = GAPS[counts.tocoo().row]
    moved = (np.where(row == GAPS[7], row + 1, row), np.arange(counts.nnz))
    atlas = make_gappy(tmp_path, counts, pieces=[moved])
    others = np.delete(np.arange(len(GAPS)), 7)
    assert (read_soma(atlas.manifest, GAPS[others]) != counts[others]).nnz == 0


@pytest.mark.parametrize(
    "column",
    [names.CELL_TYPE, names.DONOR_ID, names.BATCH, names.DATASET_ID, names.ASSAY, names.PCT_MT],
)
def test_a_missing_value_in_obs_is_an_error(tmp_path, column):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    obs = make_obs(GAPS, counts)
    obs.loc[4, column] = None
    atlas = make_gappy(tmp_path, counts, obs)
    with pytest.raises(IntegrityError, match=rf"`{column}` of the cell with soma_joinid 31 is"):
        atlas.run_pack()


def test_cells_of_a_dataset_that_the_manifest_does_not_name_are_an_error(tmp_path):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    atlas = make_gappy(tmp_path, counts, datasets=[{"dataset_id": "b"}])
    with pytest.raises(IntegrityError, match="holds cells of `a`, which its manifest does not"):
        atlas.run_pack()


@pytest.mark.parametrize("name", ["a0.tdb", "d0.tdb", "d1.tdb"])
def test_a_file_of_the_experiment_that_is_cut_is_an_error(tmp_path, name):
    atlas = make_gappy(tmp_path, make_counts("a", len(GAPS), 40, density=0.2))
    path = next((tmp_path / "ingest" / "soma" / "ms" / "RNA" / "X").rglob(name))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IntegrityError, match=r"cannot be read \(.*Delete it and run"):
        read_soma(atlas.manifest)


@pytest.mark.parametrize("name", ["a0.tdb", "d0.tdb", "d1.tdb"])
def test_a_bit_of_the_experiment_that_flips_is_an_error(atlas, tmp_path, name):
    """The sum of a cell does not tell one gene from another: TileDB's checksum does."""
    folder = shutil.copytree(atlas.folder / "ingest", tmp_path / "ingest")
    path = next(folder.glob(f"soma/*/ms/RNA/X/raw/__fragments/*/{name}"))
    whole = path.read_bytes()
    genes, joinids = pd.Series(gene_ids(N_GENES)), np.arange(read_json(atlas.manifest)["n_obs"])
    for place in range(len(whole) // 10, len(whole), len(whole) // 10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(IntegrityError, match=r"cannot be read \(.*Delete it and run"):
            read_soma(folder / "manifest.json", joinids, genes)


def test_a_pack_of_another_experiment_is_refused(atlas, sound):
    pack_of = read_json(atlas.pack)["experiment"]
    check_sealed(atlas.manifest, pack_of, atlas.pack)
    with pytest.raises(IntegrityError, match="made from another experiment than"):
        check_sealed(sound.manifest, pack_of, atlas.pack)


def test_genes_that_the_experiment_lacks_are_an_error(sound):
    with (
        open_experiment(sound.manifest) as experiment,
        pytest.raises(GeneMismatchError, match=r"1 of the model's 41 genes.*another gene list"),
    ):
        SomaSource(experiment, GAPS, pd.Series([*GENES, "ENSG99999999999"]))


# An experiment that is sealed again.


def test_a_reader_keeps_the_cells_of_its_moment(tmp_path):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    atlas = make_gappy(tmp_path, counts)
    with open_experiment(atlas.manifest) as experiment:
        source = SomaSource(experiment, GAPS, GENES)
        before = source.read(np.arange(30)).to_csr(40)
        coo = counts.tocoo()
        later = (GAPS[coo.row], coo.col.astype(np.int64), coo.data + 1)
        write_entries(tmp_path / "ingest" / "soma", *later)
        assert (source.read(np.arange(30)).to_csr(40) != before).nnz == 0
    assert (read_soma(atlas.manifest) != counts).nnz == 0


def test_counts_of_a_later_moment_are_refused(tmp_path):
    counts = make_counts("a", len(GAPS), 40, density=0.2)
    atlas = make_gappy(tmp_path, counts)
    coo = counts.tocoo()
    write_entries(tmp_path / "ingest" / "soma", GAPS[coo.row[:9]], coo.col[:9], coo.data[:9] + 1)
    about = read_json(atlas.manifest)
    for timestamp in (1, about["timestamp"] + 10_000):
        pack.write_json(about | {"timestamp": timestamp}, atlas.manifest)
        with pytest.raises(IntegrityError, match=r"molecules in X|were sealed|cannot be read"):
            read_soma(atlas.manifest)
