"""What a training costs before its first step."""

import json
import subprocess
import sys

TRAIN = """
import sys
from pathlib import Path
from tabatlas.pretrain import stage

pack, settings, folder = map(Path, sys.argv[1:])
before = set(sys.modules)
stage.run(pack, settings, folder / "checkpoints", folder / "model")
print(*sorted({name.split(".")[1] for name in set(sys.modules) - before if "torch._" in name}))
"""


def test_a_training_does_not_import_torchs_compiler(atlas, tmp_path):
    """It would be most of the time from the imports to the first step."""
    settings = tmp_path / "pretrain.json"
    covariates = [{"column": "dataset_id", "as": "condition", "width": 3}]  # it has an embedding
    architecture = {"n_d": 8, "n_a": 8, "n_steps": 1}
    knobs = {"architecture": architecture, "covariates": covariates, "epochs": 1, "threads": 1}
    settings.write_text(json.dumps(knobs))
    called = [sys.executable, "-c", TRAIN, atlas.pack, settings, tmp_path]
    ended = subprocess.run(called, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not {"_dynamo", "_inductor"} & set(ended.stdout.split()), ended.stdout
