"""`tabatlas annotate`: from a file of any format to an h5ad with labels."""

import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from query_files import write_10x, write_10x_v2, write_mtx, write_soma

from tabatlas import cli
from tabatlas.annotate.annotation import EMBEDDING

LABEL, CONFIDENCE = "tabatlas_label_unfiltered", "tabatlas_confidence"


@pytest.fixture
def annotate(bundle, tmp_path):
    """Run the command on a query; return what it wrote."""

    def run(query, *flags):
        out = tmp_path / "out" / "annotated.h5ad"
        cli.main(["annotate", str(query), "--model", str(bundle), "--out", str(out), *flags])
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        return ad.read_h5ad(out)

    return run


def write_h5ad(path, adata):
    adata.write_h5ad(path)


def write_prefixed(folder, adata):
    write_mtx(folder, adata, "GSM1_")


def write_plain(folder, adata):
    write_mtx(folder, adata, zipped=False)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("query.h5ad", write_h5ad),
        ("query.h5", write_10x),
        ("old.h5", write_10x_v2),
        ("mtx", write_mtx),
        ("prefixed", write_prefixed),
        ("plain", write_plain),
        ("soma", write_soma),
    ],
)
def test_every_format_gets_the_same_annotation(annotate, query, expected, tmp_path, name, write):
    write(tmp_path / name, query)
    found = annotate(tmp_path / name)
    assert found.obs_names.tolist() == query.obs_names.tolist()
    assert (found.obs[LABEL].astype(str) == expected.obs[LABEL].astype(str)).all()
    np.testing.assert_allclose(found.obs[CONFIDENCE], expected.obs[CONFIDENCE], rtol=1e-4)
    np.testing.assert_allclose(
        found.obsm[EMBEDDING], expected.obsm[EMBEDDING], rtol=1e-3, atol=1e-4
    )
    assert (found.X != query.X).nnz == 0


def test_all_that_the_file_holds_is_kept_and_x_is_not_rewritten(annotate, query, tmp_path):
    query.obs["odd"] = pd.Categorical(["=cmd()", None, "</script>"] * 40)
    query.obs["empty"] = np.nan
    query.obsm["X_umap"] = np.ones((query.n_obs, 2))
    query.obsp["distances"] = query.X[:, :1] @ query.X[:, :1].T
    query.layers["spliced"] = query.X * 2
    query.uns["colors"] = {"a": np.array(["red"]), "deep": {"b": 1}}
    query.raw = query.copy()
    query.write_h5ad(tmp_path / "query.h5ad", compression="gzip")
    annotate(tmp_path / "query.h5ad")
    before, after = (
        read_elements(path)
        for path in (tmp_path / "query.h5ad", tmp_path / "out" / "annotated.h5ad")
    )
    added = after.keys() - before.keys()
    assert all("tabatlas" in name for name in added)
    assert before == {name: after[name] for name in before}


def read_elements(path):
    """The stored bytes of every array, compressed as they are."""
    found = {}

    def read(name, item):
        if not isinstance(item, h5py.Dataset):
            return
        if item.chunks is None:
            found[name] = (
                np.asarray(item[()]).tobytes() if item.dtype.kind != "O" else repr(item[()])
            )
        else:
            chunks = [item.id.get_chunk_info(n) for n in range(item.id.get_num_chunks())]
            found[name] = [item.id.read_direct_chunk(one.chunk_offset)[1] for one in chunks]

    with h5py.File(path) as file:
        file.visititems(read)
    return found


def test_annotating_again_replaces_what_was_there(annotate, query, tmp_path, model):
    query.write_h5ad(tmp_path / "query.h5ad")
    first = annotate(tmp_path / "query.h5ad")
    shutil.copy(tmp_path / "out" / "annotated.h5ad", tmp_path / "again.h5ad")
    second = annotate(tmp_path / "again.h5ad")
    assert list(first.obs) == list(second.obs)
    pd.testing.assert_frame_equal(first.obs, second.obs)
    assert second.uns["tabatlas"]["model"] == model.bundle.title


def test_the_command_says_what_it_used(annotate, query, tmp_path, caplog):
    query[:, 20:].copy().write_h5ad(tmp_path / "query.h5ad")
    with caplog.at_level("INFO"):
        annotate(tmp_path / "query.h5ad")
    said = caplog.text
    assert "120 cells, counts in X" in said
    assert "40 of the model's 60 genes (66.7 %), by Ensembl id in `index` of var" in said
    assert "assigned" in said


def refuse(capsys, code, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(one) for one in arguments])
    assert caught.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-genes", "2"], "--min-genes 2.0: a share lies between 0 and 1"),
        (["--threads", "0"], "--threads 0: at least one"),
        (["--device", "tpu"], "device: tpu: choose `auto`, `cpu` or `cuda`"),
        (["--out", "x.csv"], "--out x.csv: an h5ad is written"),
        (["--min-genes", "many"], "invalid float value: 'many'"),
    ],
)
def test_a_wrong_flag_is_told(bundle, query, tmp_path, capsys, flags, message):
    query.write_h5ad(tmp_path / "query.h5ad")
    given = ["--model", bundle, "--out", tmp_path / "out.h5ad"]
    assert message in refuse(capsys, 2, "annotate", tmp_path / "query.h5ad", *given, *flags)


def test_the_query_is_never_written_over(bundle, query, tmp_path, capsys):
    path = tmp_path / "query.h5ad"
    query.write_h5ad(path)
    before = path.read_bytes()
    said = refuse(capsys, 2, "annotate", path, "--model", bundle, "--out", path)
    assert "that is the query itself" in said
    assert path.read_bytes() == before


def test_an_earlier_result_stays_where_a_run_fails(bundle, query, tmp_path, capsys):
    path, out = tmp_path / "query.h5ad", tmp_path / "out" / "annotated.h5ad"
    out.parent.mkdir()
    out.write_text("earlier")
    query.X = query.X * 0.3
    query.write_h5ad(path)
    said = refuse(capsys, 3, "annotate", path, "--model", bundle, "--out", out)
    assert f"{path}: no raw counts: X holds fractions" in said
    assert out.read_text() == "earlier"
    assert [one.name for one in out.parent.iterdir()] == [out.name]
