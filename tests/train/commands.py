"""The commands that train, on the small atlas."""

from pathlib import Path

from small_atlas import Atlas
from tabatlas.pretrain import stage as pretrain

TRAINING = {"epochs": 3, "threads": 1, "batch_size": 16, "micro_batches": 2, "learning_rate": 0.01}
SMALL = {"n_d": 4, "n_a": 4, "n_steps": 1, "n_shared": 1, "n_independent": 1}


def make_commands(atlas: Atlas, folder: Path) -> dict[str, list[object]]:
    """Arguments of each stage that trains, but for its checkpoints and its model."""
    knobs = TRAINING | {"epochs": 1, "architecture": SMALL}
    pretrain.run(atlas.pack, atlas.settings("pretrain_once", **knobs), folder / "c", folder)
    inputs = ["--encoder", folder, "--pack", atlas.pack]
    experiment = ["--manifest", atlas.manifest]
    split = ["--split", atlas.cells, "--proof", atlas.proof]
    finetuning = atlas.settings("finetune_ranks", **TRAINING)
    knobs = TRAINING | {"n_latent": 3, "score_cells": 100}
    integration = ["--settings", atlas.settings("integrate_ranks", **knobs)]
    knobs = TRAINING | {"architecture": SMALL}
    return {
        "pretrain": ["--pack", atlas.pack, "--settings", atlas.settings("pretrain_ranks", **knobs)],
        "finetune": [*inputs, *experiment, *split, "--settings", finetuning],
        "integrate": [*inputs, *experiment, *integration],
        "explain": ["replicate", "--seed", 1, *inputs, "--training", finetuning],
    }


def complete(stage: str, arguments: list[object], folder: Path) -> list[str]:
    """`tabatlas` with arguments, its checkpoints and model below a folder."""
    model = folder / "model"
    paths = ["--checkpoints", folder / "checkpoints", "--model", model]
    if stage == "integrate":
        paths += ["--embedding", model / "embedding.parquet", "--layout", model / "layout.parquet"]
    return ["-m", "tabatlas", stage, *map(str, [*arguments, *paths])]
