"""What the doctor says about disks, and about places of the experiment."""

import os

import pytest

from s3_server import serve_bucket
from tabatlas.config import load_config
from tabatlas.doctor import disks
from tabatlas.doctor.findings import Site

CONFIG = {"atlas": "tiny", "datasets": [{"dataset_id": "one", "path": "one.h5ad"}]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(**ingest):
    return Site(config=load_config(CONFIG | {"ingest": ingest})[0])


def test_a_folder_is_measured_and_left_as_it_was(folder):
    ((state, text),) = disks.check_results(Site())
    assert state == "ok"
    assert text.startswith(f"{folder}: ")
    assert "MB/s" in text
    assert os.listdir(folder) == []


def test_the_results_are_judged_where_they_will_be(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("large")
    (folder / "results").symlink_to(elsewhere)
    (elsewhere / "tiny").mkdir()
    ((state, text),) = disks.check_results(configure())
    assert state == "ok"
    assert text.startswith(f"{folder}/results/tiny: ")


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
def test_a_disk_that_cannot_do_what_a_training_needs_fails(monkeypatch, call):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, call, refuse)
    ((state, text),) = disks.check_results(Site())
    assert state == "failed"
    assert "Operation not permitted" in text
    assert "choose a disk that can" in text


@pytest.mark.parametrize(
    ("pace", "message"),
    [
        (disks.Pace(1.0, 1.0, 0.0), "1 MB/s, 1.0 ms for a small file"),
        (disks.Pace(100.0, 2000.0, 0.0), "slower than 10 MB/s and 1000 ms"),
        (disks.Pace(100.0, 1.0, -30.0), "its clock is 30.0 s behind this machine's"),
        (disks.Pace(100.0, 1.0, 30.0), "its clock is 30.0 s ahead of this machine's"),
    ],
)
def test_a_slow_disk_and_a_wrong_clock_fail(monkeypatch, pace, message):
    monkeypatch.setattr(disks, "measure", lambda *_: pace)
    ((state, text),) = disks.check_results(Site())
    assert state == "failed"
    assert message in text


def test_a_disk_that_is_slow_for_a_moment_is_asked_again(monkeypatch):
    paces = iter([disks.Pace(1.0, 1.0, 0.0), disks.Pace(100.0, 1.0, 0.0)])
    monkeypatch.setattr(disks, "measure", lambda *_: next(paces))
    ((state, text),) = disks.check_results(Site())
    assert (state, "100 MB/s" in text) == ("ok", True)


def test_a_full_disk_fails(monkeypatch):
    monkeypatch.setattr(disks, "SPACE", 1e9)
    ((state, text),) = disks.check_results(Site())
    assert state == "failed"
    assert text.endswith("Make room")


def test_the_experiment_is_in_the_results_or_where_the_configuration_says(folder):
    assert next(disks.check_experiment(Site())).state == "not checked"
    assert list(disks.check_experiment(configure())) == [("ok", "in the results")]
    ((state, text),) = disks.check_experiment(configure(uri=f"{folder}/not/yet/there"))
    assert (state, text.split(":")[0]) == ("ok", str(folder))


@pytest.mark.parametrize(
    ("uri", "state", "message"),
    [
        ("s3://atlases/prefix", "ok", "answers, nothing there yet"),
        ("s3://nowhere/prefix", "failed", "The specified bucket does not exist"),
    ],
)
def test_a_store_is_asked_whether_it_is_there(variables, monkeypatch, uri, state, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ((found, text),) = disks.check_experiment(configure(uri=uri))
    assert (found, message in text) == (state, True), text


def test_a_store_that_does_not_answer_fails(monkeypatch):
    monkeypatch.setenv("TILEDB_VFS_S3_ENDPOINT_OVERRIDE", "127.0.0.1:9")
    monkeypatch.setenv("TILEDB_VFS_S3_SCHEME", "http")
    ((state, text),) = disks.check_experiment(configure(uri="s3://atlases/prefix"))
    assert state == "failed"
    assert "credentials (AWS_*) and the endpoint" in text


@pytest.fixture(scope="module")
def variables():
    """Those of an S3 server with the one bucket `atlases`."""
    with serve_bucket("atlases") as found:
        yield found
