"""What a user sees who stops a command that trains, whatever it is about to do."""

import signal
import subprocess
import sys
import time

import pytest
from commands import complete

from tabatlas.train.signals import name_signal

# The last line that the command has printed when the signal comes; none in its imports.
PHASES = {
    "imports": None,
    "opening": " on cpu",
    "training": "epoch 1/3",
    "last epoch": "epoch 3/3",
    "evaluating": "cells embedded in",
}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
FAST = [("integrate", "evaluating", number) for number in (signal.SIGTERM, signal.SIGALRM)]
ALL = [
    (stage, phase, SIGNALS[number % 4])
    for stage in ("pretrain", "finetune", "integrate", "explain")
    for number, phase in enumerate(PHASES, start=len(stage))
    if phase != "evaluating" or stage == "integrate"
]
SLOW = [pytest.param(*one, marks=pytest.mark.slow) for one in ALL if one not in FAST]


@pytest.mark.parametrize(("stage", "phase", "number"), [*FAST, *SLOW])
def test_a_stopped_training_says_one_line_and_ends_with_75(
    commands, tmp_path, stage, phase, number
):
    started = subprocess.Popen(
        [sys.executable, *complete(stage, commands[stage], tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    told = ""
    if PHASES[phase] is None:
        time.sleep(0.7)
    while PHASES[phase] and PHASES[phase] not in told:
        line = started.stderr.readline()
        assert line, told
        told += line
    started.send_signal(number)
    told += started.communicate()[1]
    check_stopped(stage, number, started.returncode, told)
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "model.safetensors" not in found
    assert not any(name.startswith(".") for name in found)


# What modules in C import while they are imported: an exception would end them, or get lost.
STRUCK = """
import os, sys
from tabatlas import cli
left, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
def strike(event, _):
    global left
    if event == "import" and sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
parse = cli.parse_command
def watch_imports(*arguments):
    sys.addaudithook(strike)
    return parse(*arguments)
cli.parse_command = watch_imports
cli.main()
"""


@pytest.mark.parametrize(
    "nth", [11, 150, *(pytest.param(n, marks=pytest.mark.slow) for n in range(5, 345, 9))]
)
def test_a_signal_during_an_import_waits_for_its_end(commands, tmp_path, nth):
    number = SIGNALS[nth % 4]
    arguments = complete("finetune", commands["finetune"], tmp_path)[2:]
    call = [sys.executable, "-c", STRUCK, str(nth), str(int(number)), *arguments]
    ended = subprocess.run(call, stderr=subprocess.PIPE, text=True)
    check_stopped("finetune", number, ended.returncode, ended.stderr)
    assert ended.stderr.count("\n") == 1


def check_stopped(stage, number, code, told):
    """One line tells of the signal."""
    *before, last = told.splitlines()
    assert code == 75, told
    assert last.startswith(f"tabatlas {stage}: error: stopped by {name_signal(number)}")
    assert ("give it more `runtime`" in last) == (number == signal.SIGALRM)
    assert last.endswith("; run it again.")
    assert not any("error:" in line or "Traceback" in line for line in before)
