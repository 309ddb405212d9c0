"""An experiment on S3, served over loopback."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from s3_server import serve_bucket
from synthetic import IngestRun, make_experiment, make_normalized
from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.experiment import open_experiment
from tabatlas.ingest.context import share_context
from tabatlas.provenance import read_json
from tabatlas.stream.soma import SomaSource


@pytest.fixture(scope="module")
def variables():
    """Those of a server with the one bucket `atlases`."""
    with serve_bucket("atlases") as found:
        yield found


@pytest.fixture
def store(variables, monkeypatch):
    """The variables that docs/ingest.md names, for this server."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    share_context.cache_clear()  # TileDB reads its variables once for each context
    yield "s3://atlases/prefix"
    share_context.cache_clear()


@pytest.fixture
def sources(tmp_path):
    paths = [tmp_path / "normalize" / f"{name}.h5ad" for name in "ab"]
    for path in paths:
        make_normalized(path, path.stem, 30, 20)
    return paths


def test_an_experiment_on_s3_is_the_one_on_disk(store, sources, tmp_path):
    manifest = make_experiment(tmp_path / "remote", sources, uri=store, block_entries=50)
    local = make_experiment(tmp_path / "local", sources)
    assert read_json(manifest)["uri"].startswith(f"{store}/")
    assert read_json(manifest)["digest"] == read_json(local)["digest"]
    assert not (tmp_path / "remote" / "soma").exists()
    written = sp.vstack([ad.read_h5ad(source).X for source in sources], format="csr")
    with open_experiment(manifest) as experiment:
        joinids = experiment.read_obs([])[names.JOINID].to_numpy()
        stored = experiment.read_counts(joinids)
        source = SomaSource(experiment, joinids, experiment.read_var()[names.FEATURE_ID])
        minibatches = list(source.shuffle(source.order(16, seed=0), 0))
    np.testing.assert_array_equal(stored.toarray(), written.toarray())
    rows = torch.cat([one.joinid for one in minibatches]).numpy()
    assert sorted(rows) == joinids.tolist()
    streamed = sp.vstack([one.to_csr(written.shape[1]) for one in minibatches])
    np.testing.assert_array_equal(streamed.toarray(), written[rows].toarray())


def test_a_repeat_on_s3_keeps_what_is_there(store, sources, tmp_path):
    manifest = make_experiment(tmp_path / "once", sources, uri=store)
    again = make_experiment(tmp_path / "twice", sources, uri=store)
    assert read_json(manifest)["uri"] == read_json(again)["uri"]
    assert read_json(manifest)["digest"] == read_json(again)["digest"]


def test_a_bucket_that_does_not_exist_is_a_clear_error(store, sources, tmp_path):
    run = IngestRun(tmp_path / "ingest", sources)
    run.choose(uri="s3://missing/prefix")
    with pytest.raises(InputError, match=r"s3://missing/prefix.*the bucket, the credentials"):
        run.register()
    assert not run.registry.exists()
