"""Trainings that `torchrun` starts as several processes, from the command line to the model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from small_atlas import Atlas
from tabatlas.pretrain import stage as pretrain

TRAINING = {"epochs": 3, "threads": 1, "batch_size": 16, "micro_batches": 2, "learning_rate": 0.01}
SMALL = {"n_d": 4, "n_a": 4, "n_steps": 1, "n_shared": 1, "n_independent": 1}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def commands(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """The commands that train, but for their folders of checkpoints and of the model."""
    folder = tmp_path_factory.mktemp("encoder")
    knobs = TRAINING | {"epochs": 1, "architecture": SMALL}
    pretrain.run(atlas.pack, atlas.settings("pretrain_once", **knobs), folder / "c", folder)
    inputs = ["--encoder", folder, "--pack", atlas.pack]
    experiment = ["--manifest", atlas.manifest]
    split = ["--split", atlas.cells, "--proof", atlas.proof]
    finetuning = atlas.settings("finetune_ranks", **TRAINING)
    knobs = TRAINING | {"n_latent": 3, "score_cells": 100}
    integration = ["--settings", atlas.settings("integrate_ranks", **knobs)]
    tables = ["--embedding", folder / "embedding.parquet", "--layout", folder / "layout.parquet"]
    knobs = TRAINING | {"architecture": SMALL}
    return {
        "pretrain": ["--pack", atlas.pack, "--settings", atlas.settings("pretrain_ranks", **knobs)],
        "finetune": [*inputs, *experiment, *split, "--settings", finetuning],
        "integrate": [*inputs, *experiment, *integration, *tables],
        "explain": ["replicate", "--seed", 1, *inputs, "--training", finetuning],
    }


def train(
    stage: str, arguments: list[object], folder: Path, launcher: tuple[str, ...] = ()
) -> tuple[dict[str, bytes], str]:
    """Run a command; the files of its model, and what it printed."""
    call = [sys.executable, *launcher, "-m", "tabatlas", stage, *map(str, arguments)]
    call += ["--checkpoints", str(folder / "checkpoints"), "--model", str(folder / "model")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}, done.stderr


SLOW = [
    pytest.param(stage, marks=pytest.mark.slow) for stage in ("finetune", "integrate", "explain")
]


@pytest.mark.parametrize("stage", ["pretrain", *SLOW])
def test_two_ranks_write_the_same_model_as_one_process(commands, tmp_path, stage):
    alone, _ = train(stage, commands[stage], tmp_path / "alone")
    both, told = train(stage, commands[stage], tmp_path / "both", TORCHRUN)
    assert {"model.safetensors", "metrics.jsonl"} <= alone.keys()
    assert both == alone
    assert "rank 0 epoch 3/3" in told
    assert "rank 1" not in told
