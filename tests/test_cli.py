import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest

from foreign import make_foreign, normalize, write_foreign
from tabatlas import cli
from tabatlas.names import STAGES

OTHERS = ("annotate", "verify", "models", "replay", "doctor", "config")
HEAVY = {"anndata", "numpy", "pandas", "scanpy", "snakemake", "tiledbsoma", "torch"}


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`tabatlas` with arguments, in a process of its own."""
    call = [sys.executable, "-m", "tabatlas", *map(str, arguments)]
    return subprocess.run(call, text=True, stderr=subprocess.PIPE, **options)


def find_heavy(code: str) -> set[str]:
    """The heavy libraries that a piece of code imports."""
    show = f"import sys; print(*(set(sys.modules) & {HEAVY}), sep=',', file=sys.stderr)"
    call = [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({show!r}))\n{code}"]
    printed = subprocess.run(call, capture_output=True, text=True, check=True)
    return set(filter(None, printed.stderr.strip().split(",")))


@pytest.mark.parametrize(
    "code",
    [
        "from tabatlas.cli import main; main(['--help'])",
        "from tabatlas.cli import main; main(['config'])",
        "import tabatlas.bundle.verify, tabatlas.bundle.models",  # on a login node
        "import tabatlas.config, tabatlas.provenance",  # what a dry run imports
    ],
)
def test_help_and_dry_runs_import_nothing_heavy(code: str) -> None:
    assert find_heavy(code) == set()


def test_heavy_imports_would_be_seen() -> None:
    assert find_heavy("import numpy") == {"numpy"}


def test_help_names_every_stage_in_the_order_of_the_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    named = re.findall(r"^  (\w+) +\w", capsys.readouterr().out.split("stages,")[1], re.M)
    assert named == [*STAGES, *OTHERS]


@pytest.mark.parametrize("stage", [*STAGES, *OTHERS])
def test_every_stage_explains_itself(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([stage, "--help"])
    assert caught.value.code == 0
    assert f"usage: tabatlas {stage}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["fetchh"], ["fetch"], ["fetch", "--rows", "x"], ["config", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: tabatlas" in capsys.readouterr().err


# parameters become flags


def example(
    query: Annotated[str, "a place"],
    /,
    source: Annotated[Path, "a file"],
    tables: Annotated[list[Path], "files"],
    other: Annotated[Path | None, "a file or none"] = None,
    n_cells: Annotated[int, "a number: 100 %%"] = 3,
    dry: Annotated[bool, "a switch"] = False,
) -> None:
    """Do nothing."""


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    cli.add_flags(parser, example)
    return vars(parser.parse_args(arguments))


def test_parameters_of_a_stage_are_its_flags() -> None:
    given = parse("q", "--source", "a", "--tables", "b", "c", "--n-cells", "5", "--dry")
    assert given == {
        "query": "q",
        "source": Path("a"),
        "tables": [Path("b"), Path("c")],
        "other": None,
        "n_cells": 5,
        "dry": True,
    }
    assert parse("q", "--source", "a", "--tables")["tables"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("q", "--source", "a"),
        ("--source", "a", "--tables"),
        ("q", "--source", "a", "--tables", "--n-cells", "many"),
    ],
)
def test_missing_and_mistyped_flags_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)


# errors


class Files:
    """What `tabatlas fetch` reads and writes."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "a.h5ad", folder / "out"
        self.row, self.settings = folder / "row.json", folder / "settings.json"
        self.out.mkdir()
        self.row.write_text(json.dumps({"dataset_id": "d", "path": str(self.source)}))
        self.settings.write_text("{}")

    def arguments(self, **changed: Path) -> list[object]:
        """The command line, with other paths where they are given."""
        flags = {
            "row": self.row,
            "settings": self.settings,
            "source": self.source,
            "cells": self.out / "d.h5ad",
            "facts": self.out / "d.json",
        } | changed
        return ["fetch", *(word for flag, path in flags.items() for word in (f"--{flag}", path))]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_error_of_the_user_is_a_message_without_a_traceback(files: Files) -> None:
    write_foreign(files.source, normalize(make_foreign()))
    ended = run(*files.arguments())
    assert ended.returncode == 3
    assert ended.stderr.startswith(f"tabatlas fetch: error: {files.source}: no raw counts: X holds")
    assert ended.stderr.count("\n") == 1
    assert not list(files.out.iterdir())


def test_wrong_settings_end_with_2_and_a_line_each(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.settings.write_text('{"min_mapped_genes": 2, "nope": 1}')
    with pytest.raises(SystemExit) as caught:
        cli.main(list(map(str, files.arguments())))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"tabatlas fetch: error: {files.settings}: `") for line in lines)


@pytest.mark.parametrize("flag", ["row", "settings"])
def test_missing_settings_file_is_named(
    files: Files, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(map(str, files.arguments(**{flag: Path("none.json")}))))
    assert caught.value.code == 2
    assert "fetch: error: none.json: not a readable" in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_a_message(files: Files) -> None:
    write_foreign(files.source)
    ended = run(*files.arguments(cells=files.row / "d.h5ad"))  # its folder is a file
    assert ended.returncode == 3
    assert "File exists" in ended.stderr
    assert "Traceback" not in ended.stderr


# Of some 30 kB: HDF5 sees that the disk is full when it writes, or only when it closes the file.
@pytest.mark.parametrize("n_bytes", [4096, 16384])
def test_full_disk_is_a_message_that_leaves_nothing(files: Files, n_bytes: int) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    write_foreign(files.source)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = run(*files.arguments(), preexec_fn=limit_files, env=environment)
    assert ended.returncode == 3
    # h5py prints errors of its own before.
    assert ended.stderr.splitlines()[-1].startswith("tabatlas fetch: error: ")
    assert not list(files.out.iterdir())


def test_stdout_that_is_full_is_a_message() -> None:
    with open("/dev/full", "w") as full:
        ended = run("config", stdout=full)
    assert ended.returncode == 3
    assert "No space left on device" in ended.stderr
    assert ended.stderr.count("\n") == 1


# signals

SLEEPY = """
import atexit, ctypes, os, sys, time
from tabatlas import cli, errors
def work():
    print("at work", flush=True)
    if phase == "callback":
        # What a callback raises, C code can only drop.
        called = ctypes.CFUNCTYPE(None)(lambda: time.sleep(1))
        called()
    time.sleep(0 if phase == "error" else 30)
    raise errors.InputError("wrong")
def end(code):
    print("at its end", flush=True)
    time.sleep(2)
    leave(code)
phase = sys.argv.pop(1)
cli.parse_command = lambda *_: work
if phase == "end":
    leave, os._exit = os._exit, end
    cli.parse_command = lambda *_: lambda: None
atexit.register(os.abort)
cli.main()
"""


def start(*arguments: str, phase: str = "work", **options: object) -> subprocess.Popen[str]:
    """A command that sleeps in its work, or when that is over."""
    call = [sys.executable, "-c", SLEEPY, phase, *arguments]
    options = {"stderr": subprocess.PIPE} | options
    started = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, **options)
    started.stdout.readline()
    return started


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_a_signal_to_a_command_that_keeps_checkpoints_says_run_it_again(name: str) -> None:
    sent = signal.Signals[name]
    for arguments, code, end in (
        (("pretrain", "--checkpoints", "x"), 75, "; run it again."),
        (("explain", "replicate", "--checkpoints=x"), 75, "; run it again."),
        (("fetch",), 128 + sent, ""),
    ):
        started = start(*arguments)
        started.send_signal(sent)
        _, told = started.communicate()
        assert started.returncode == code
        assert told == f"tabatlas {arguments[0]}: error: stopped by {name}{end}\n"


def test_a_signal_that_the_shell_ignores_still_stops_the_command_but_for_that_of_nohup() -> None:
    def ignore() -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    started = start("pretrain", "--checkpoints", "x", preexec_fn=ignore)
    started.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.3)
    started.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in started.communicate()[1]
    assert started.returncode == 75


def test_a_signal_that_a_callback_swallows_ends_the_command_after_it() -> None:
    started = start("pretrain", "--checkpoints", "x", phase="callback")
    started.terminate()
    told = started.communicate()[1]
    assert told == "tabatlas pretrain: error: stopped by SIGTERM; run it again.\n"
    assert started.returncode == 75


def test_a_call_within_another_program_leaves_its_signals_alone() -> None:
    before = [signal.getsignal(number) for number in cli.STOPPING], sys.unraisablehook
    cli.main(["config"])
    assert ([signal.getsignal(number) for number in cli.STOPPING], sys.unraisablehook) == before


def test_a_signal_after_the_work_spoils_no_exit_code() -> None:
    started = start("pretrain", phase="end")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        started.send_signal(number)
    assert started.communicate() == ("", "")
    assert started.returncode == 0


def test_what_happens_while_the_interpreter_ends_spoils_no_exit_code() -> None:
    started = start("pretrain", phase="error")
    assert started.communicate() == ("", "tabatlas pretrain: error: wrong\n")
    assert started.returncode == 3


def test_the_exit_code_does_not_need_a_reader_of_the_message() -> None:
    read, write = os.pipe()
    started = start("pretrain", "--checkpoints", "x", stderr=write)
    os.close(write)
    os.close(read)
    started.terminate()
    started.communicate()
    assert started.returncode == 75


def test_each_of_several_ranks_says_who_it_is() -> None:
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "2"}
    started = start("pretrain", "--checkpoints", "x", env=environment)
    started.terminate()
    told = started.communicate()[1]
    assert told == "tabatlas pretrain rank 1: error: stopped by SIGTERM; run it again.\n"


@pytest.mark.parametrize(
    ("rank", "world", "told"),
    [("0", "2", " pretrain rank 0 going on\n"), ("1", "2", ""), ("1", "1", " pretrain going on\n")],
)
def test_the_first_rank_alone_tells_how_it_goes(rank: str, world: str, told: str) -> None:
    code = (
        "import logging; from tabatlas import cli; cli.start_log('pretrain');"
        "logging.getLogger('tabatlas.train.engine').info('going on')"
    )
    environment = os.environ | {"RANK": rank, "WORLD_SIZE": world}
    call = [sys.executable, "-c", code]
    printed = subprocess.run(call, env=environment, stderr=subprocess.PIPE, text=True)
    assert printed.stderr[8:] == told  # after the time


def test_reader_that_has_gone_is_no_error_message() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = run("config", stdout=write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")
