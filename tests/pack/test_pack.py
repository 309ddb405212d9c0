from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from small_atlas import N_GENES, UNMEASURED
from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.errors import GeneMismatchError, IntegrityError, ModelError
from tabatlas.experiment import open_experiment
from tabatlas.genes import load_gene_table
from tabatlas.pack.genes import choose_genes
from tabatlas.pack.settings import PackSettings
from tabatlas.provenance import digest_file, read_json
from tabatlas.stream.packed import PackedSource


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 40] ^= 1
    path.write_bytes(content)


def cut(path):
    """Cut a file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_pack_holds_the_experiments_counts_of_its_part(atlas, part):
    source, minibatch = atlas.read_packed(part)
    joinid_n = minibatch.joinid.numpy()
    with open_experiment(atlas.manifest) as experiment:
        wanted = experiment.read_counts(joinid_n)
        obs = experiment.read_obs([names.TOTAL_N, names.DATASET_ID]).set_index(names.JOINID)
    assert (minibatch.to_csr(source.n_genes) != wanted).nnz == 0
    np.testing.assert_array_equal(minibatch.total_n, obs.loc[joinid_n, names.TOTAL_N])
    cells = pd.read_parquet(atlas.cells).set_index(names.JOINID)
    assert set(cells.loc[joinid_n, names.SPLIT]) == {part}
    assert len(source) == (cells[names.SPLIT] == part).sum()


def test_no_test_cell_is_in_the_pack(atlas):
    cells = pd.read_parquet(atlas.cells)
    packed = {
        joinid
        for part in ("train", "validation")
        for joinid in PackedSource(atlas.pack, part).joinid_n
    }
    assert not packed & set(cells.loc[cells[names.SPLIT] == "test", names.JOINID])


def test_stored_order_is_shuffled(atlas):
    joinid_n = PackedSource(atlas.pack, "train").joinid_n
    assert abs(np.corrcoef(joinid_n, np.arange(len(joinid_n)))[0, 1]) < 0.3


def test_statistics_are_those_of_training_cells_that_measured_the_gene(atlas):
    source, minibatch = atlas.read_packed()
    x_ng = log1p_cp10k(minibatch.to_csr(N_GENES), minibatch.total_n.numpy()).toarray()
    measured_ng = source.presence.numpy()[minibatch.dataset]
    assert not measured_ng[:, UNMEASURED].all()
    for gene in (0, *UNMEASURED):
        values = x_ng[measured_ng[:, gene], gene].astype(np.float64)
        row = source.genes.iloc[gene]
        assert row["n_measured"] == len(values)
        np.testing.assert_allclose(row["mean"], values.mean(), rtol=1e-5)
        np.testing.assert_allclose(row["sd"], values.std(), rtol=1e-4)


def test_a_repeat_gives_the_same_digest_and_bytes(atlas):
    before = read_json(atlas.pack)
    atlas.run_pack(shard_cells=50)
    assert read_json(atlas.pack) == before


@pytest.mark.parametrize(
    "name",
    [
        "train/00000.gene",
        "train/00000.count",
        "train/indptr.npy",
        "train/check.npy",
        "train/soma_joinid.npy",
        "genes.parquet",
    ],
)
@pytest.mark.parametrize("fault", [flip, cut, Path.unlink])
def test_a_damaged_pack_is_refused_and_packed_again(copied, name, fault):
    before = read_json(copied.pack)
    fault(copied.packed / name)
    with pytest.raises(IntegrityError, match=r"train/00000.*are not those|" + name):
        copied.read_packed()
    copied.run_pack(shard_cells=50)
    assert read_json(copied.pack) == before
    copied.read_packed()


def test_a_pack_without_manifest_is_no_pack(tmp_path):
    with pytest.raises(ModelError, match="no pack there"):
        PackedSource(tmp_path / "manifest.json", "train")


def test_genes_are_all_measured_ones_or_a_list(tmp_path):
    table = load_gene_table("Homo sapiens")
    atlas = table.index[table["feature_type"] == "protein_coding"][:20]
    measured = np.ones(20, dtype=bool)
    measured[3] = False
    chosen = choose_genes(PackSettings(), atlas, measured, "Homo sapiens")
    assert chosen.tolist() == [n for n in range(20) if n != 3]
    listed = tmp_path / "genes.txt"
    listed.write_text("\n".join(atlas[[7, 3, 2]]))
    settings = PackSettings(genes=str(listed))
    assert choose_genes(settings, atlas, measured, "Homo sapiens").tolist() == [2, 7]
    with pytest.raises(GeneMismatchError, match="is no gene of the atlas"):
        choose_genes(settings, atlas[:5], measured[:5], "Homo sapiens")


def test_variable_genes_become_the_packs_genes(copied):
    copied.run_pack(genes="hvg", n_hvg=20)
    source, minibatch = copied.read_packed()
    assert source.n_genes == 20
    with open_experiment(copied.manifest) as experiment:
        var = experiment.read_var()
        wanted = experiment.read_counts(minibatch.joinid.numpy())
    places = pd.Index(var[names.FEATURE_ID]).get_indexer(source.genes[names.FEATURE_ID])
    assert (minibatch.to_csr(20) != wanted[:, places]).nnz == 0


def test_total_counts_stay_those_of_all_atlas_genes(copied):
    copied.run_pack(genes="hvg", n_hvg=5)
    _, minibatch = copied.read_packed()
    assert (minibatch.total_n.numpy() > minibatch.to_csr(5).sum(axis=1).A1).all()


def test_the_digest_of_the_pack_names_its_files(atlas):
    for name, stated in read_json(atlas.pack)["files"].items():
        assert digest_file(atlas.packed / name) == stated["sha256"]
        assert (atlas.packed / name).stat().st_size == stated["bytes"]
