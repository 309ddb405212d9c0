"""Commands as a user calls them, quick enough for a table of them."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
from desk import Run

from tabatlas import cli
from tabatlas.fetch import isolate

ROOT = Path(__file__).parents[2]


CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="session")
def child_errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What processes that read a file write to stderr; they start from one that waits, imported.

    A new interpreter for each would take a second.
    """
    path = tmp_path_factory.mktemp("children") / "stderr"
    CONTEXT.set_forkserver_preload(["tabatlas.fetch.stage"])
    kept = os.dup(2)
    with open(path, "w") as file:
        os.dup2(file.fileno(), 2)
        forkserver.ensure_running()
        os.dup2(kept, 2)
    os.close(kept)
    return path


@pytest.fixture
def run(
    child_errors: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command (`tabatlas …` without its first word, or `snakemake …`) in a folder.

    Returns its exit code and its stderr, that of its child processes included. Nothing of
    `call_isolated` is changed but how its children start.
    """
    quick = SimpleNamespace(get_context=lambda _: CONTEXT)
    monkeypatch.setattr(isolate, "multiprocessing", quick)

    def run_command(command: list[str], folder: Path) -> tuple[int, str]:
        if command[0] == "snakemake":
            return run_snakemake(command[1:], folder)
        before, code = child_errors.stat().st_size, 0
        capfd.readouterr()
        try:
            cli.main(command)
        except SystemExit as end:
            code = int(end.code or 0)
        with open(child_errors) as file:
            file.seek(before)
            return code, capfd.readouterr().err + file.read()

    return run_command


def run_snakemake(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and output of the workflow of this checkout."""
    call = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", *arguments]
    ended = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr
