"""Trainings that `torchrun` starts as several processes, from the command line to the model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import complete

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def train(
    stage: str, arguments: list[object], folder: Path, launcher: tuple[str, ...] = ()
) -> tuple[dict[str, bytes], str]:
    """Run a command; the files of its model, and what it printed."""
    call = [sys.executable, *launcher, *complete(stage, arguments, folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune", "integrate", "explain"])
def test_two_ranks_write_the_same_model_as_one_process(commands, tmp_path, stage):
    alone, _ = train(stage, commands[stage], tmp_path / "alone")
    both, told = train(stage, commands[stage], tmp_path / "both", TORCHRUN)
    assert {"model.safetensors", "metrics.jsonl"} <= alone.keys()
    assert both == alone
    assert "rank 0 epoch 3/3" in told
    assert "rank 1" not in told
