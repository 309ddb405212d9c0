"""What a user sees who stops a command that trains, whatever it is about to do."""

import signal
import subprocess
import sys
import time

import pytest
from commands import complete

# The last line that the command has printed when the signal comes; none in its imports.
PHASES = {
    "imports": None,
    "opening": " on cpu",
    "training": "epoch 1/3",
    "last epoch": "epoch 3/3",
    "evaluating": "cells embedded in",
}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
FAST = [("finetune", "imports", signal.SIGUSR1), ("integrate", "evaluating", signal.SIGTERM)]
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
    *before, last = told.splitlines()
    assert started.returncode == 75, told
    assert last.startswith(f"tabatlas {stage}: error: stopped by {number.name}")
    assert last.endswith("; run it again.")
    assert not any("error:" in line or "Traceback" in line for line in before)
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "model.safetensors" not in found
    assert not any(name.startswith(".") for name in found)
