"""An experiment on S3, served over loopback by a process of its own.

A server in a thread would wait for the interpreter, which TileDB holds while it waits for it.
"""

import subprocess
import sys
import urllib.request

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from synthetic import IngestRun, make_experiment, make_normalized
from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.experiment import open_experiment
from tabatlas.ingest.context import share_context
from tabatlas.provenance import read_json
from tabatlas.stream.soma import SomaSource

SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def host():
    """Host and port of an S3 server with the one bucket `atlases`."""
    command, pipe = [sys.executable, "-c", SERVE], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as job:
        address = next(line.strip() for line in job.stdout if line.startswith("127."))
        bucket = urllib.request.Request(f"http://{address}/atlases", method="PUT")
        urllib.request.urlopen(bucket).close()
        yield address
        job.stdin.close()


@pytest.fixture
def store(host, monkeypatch):
    """The variables that docs/ingest.md names, for this server."""
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "TILEDB_VFS_S3_ENDPOINT_OVERRIDE": host,
        "TILEDB_VFS_S3_SCHEME": "http",
        "TILEDB_VFS_S3_USE_VIRTUAL_ADDRESSING": "false",
    }
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
