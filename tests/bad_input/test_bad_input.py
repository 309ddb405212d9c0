"""The table of bad input: each case ends in one clear message, or in what was meant.

A row is a `Case`; to add some, put them into a tuple `CASES` of a module beside this one.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import bad_atlas
import bad_axes
import bad_config
import bad_counts
import bad_files
import bad_metadata
import pytest
from desk import Case, Desk

from tabatlas import cli
from tabatlas.fetch import isolate

ROOT = Path(__file__).parents[2]
TABLE = {
    f"{module.__name__.removeprefix('bad_')}: {case.name}": case
    for module in (bad_files, bad_counts, bad_axes, bad_metadata, bad_atlas, bad_config)
    for case in module.CASES
}
MOST_LINES = 3


@pytest.fixture(scope="module")
def child_errors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What processes that read a file write to stderr; they start from one that waits, imported.

    A new interpreter for each would take a second. Nothing else of `call_isolated` is changed.
    """
    path = tmp_path_factory.mktemp("children") / "stderr"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tabatlas.fetch.stage"])
    kept = os.dup(2)
    with open(path, "w") as file, pytest.MonkeyPatch.context() as patch:
        os.dup2(file.fileno(), 2)
        forkserver.ensure_running()
        os.dup2(kept, 2)
        start = SimpleNamespace(get_context=lambda _: context)
        patch.setattr(isolate, "multiprocessing", start)
        yield path
    os.close(kept)


def run(command: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    if command[0] == "snakemake":
        call = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", *command[1:]]
        ended = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        return ended.returncode, ended.stdout + ended.stderr
    capfd.readouterr()
    try:
        cli.main(command)
    except SystemExit as end:
        return int(end.code or 0), capfd.readouterr().err
    return 0, capfd.readouterr().err


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_bad_input_ends_in_one_clear_message_or_in_what_was_meant(
    case: Case, tmp_path: Path, child_errors: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path)
    command = case.arrange(desk)
    before = child_errors.stat().st_size
    code, err = run(command, tmp_path, capfd)
    err += child_errors.read_text()[before:]
    assert code == case.code, err
    assert "Traceback" not in err
    assert not [path for path in desk.left() if path.name.startswith(".")]
    if case.outcome is not None:
        case.outcome(desk)
        return
    assert all(part in err for part in case.says), err
    lines = [line for line in err.splitlines() if not line.startswith("Using workflow specific")]
    assert 1 <= len(lines) <= MOST_LINES
    assert all(line.startswith("tabatlas") and ": error: " in line for line in lines), err
    assert max(map(len, lines)) < 600
    assert not [path for path in desk.left() if path.is_file()]
