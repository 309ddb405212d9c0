"""Fixtures that several folders share."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_slurm import FakeSlurm
from small_atlas import Atlas, make_atlas
from small_bundle import make_bundle, make_models
from tiny_atlas import Workdir
from trainings import LOCAL, copy_packed

# What uses the tiny atlas, which takes a minute to build, and the cluster with its ports.
TOGETHER = ("tests/rules/", "tests/slurm/")


def pytest_configure() -> None:
    """Whoever starts the tests may ignore signals, and what they start would inherit that."""
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, default)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`pytest -n 2`: a file's tests run in one process, and all those that are `TOGETHER`."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = super()._split_scope(nodeid)
            return TOGETHER[0] if path.startswith(TOGETHER) else path

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """A small atlas, split and packed. Donors 0 and 1 have cells in all three datasets."""
    made = make_atlas(tmp_path_factory.mktemp("atlas"))
    made.run_split(test_fraction=0.3, validation_fraction=0.2)
    made.run_pack(shard_cells=50)
    return made


@pytest.fixture
def copied(atlas: Atlas, tmp_path: Path) -> Atlas:
    """A copy of the small atlas, to damage."""
    shutil.copytree(atlas.folder, tmp_path / "copied")
    return Atlas(tmp_path / "copied")


@pytest.fixture(scope="session")
def models(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every stage on the small atlas."""
    folder = tmp_path_factory.mktemp("models")
    make_models(atlas, folder)
    return folder


@pytest.fixture(scope="session")
def bundle(atlas: Atlas, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the small atlas. Its genes are the first protein-coding ones of the human."""
    return make_bundle(atlas, models, tmp_path_factory.mktemp("bundle"))[0]


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Commands of Slurm without any answer yet."""
    folder = tmp_path / "slurm commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(folder)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """The tiny atlas, built to its report."""
    workdir = Workdir(tmp_path_factory.mktemp("atlas"))
    workdir.snakemake("--cores", "2", *workdir.configure())
    return workdir


@pytest.fixture(scope="session")
def undisturbed(
    built: Workdir, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, object]], list[bytes]]:
    """The model of an undisturbed local run with these knobs, as it stands on disk."""
    done: dict[str, list[bytes]] = {}

    def run(knobs: dict[str, object]) -> list[bytes]:
        key = str(knobs)
        if key not in done:
            made = copy_packed(built, tmp_path_factory.mktemp("undisturbed"), knobs)
            assert made.start(*LOCAL).wait() == 0, made.read_log()
            done[key] = made.read_model()
        return done[key]

    return run
