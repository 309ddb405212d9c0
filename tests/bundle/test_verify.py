"""What is no bundle, or no longer the one that was built, is refused."""

import json

import pytest
import torch

from tabatlas import cli
from tabatlas.annotate import Model
from tabatlas.bundle.verify import ABOUT
from tabatlas.errors import ModelError


def test_a_pickled_model_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit('the pickle ran')",)

    torch.save(Trap(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model.pt: a file, but a bundle is the folder"):
        Model.load(tmp_path / "model.pt", "cpu")


def test_verify_says_what_built_it(bundle, capsys):
    cli.main(["verify", str(bundle)])
    said = capsys.readouterr().out
    assert said.startswith(f"{bundle.name}: ")
    assert "every hash is right" in said
    assert f"a  sha256 {'0' * 64}" in said
    assert "finetune " in said
    assert "torch " in said


def test_models_are_listed_with_their_size_and_score(bundle, capsys):
    cli.main(["models", "list", str(bundle.parent)])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "organism", "genes", "types", "cells", "macro-F1"]
    assert row.split()[:6] == [bundle.name, "Homo", "sapiens", "60", "3", "270"]


def test_a_folder_without_models_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", "list", str(tmp_path)])
    assert caught.value.code == 3
    assert "no bundle in it" in capsys.readouterr().err


def test_info_is_the_card_and_the_origin(bundle, capsys):
    cli.main(["models", "info", str(bundle)])
    said = capsys.readouterr().out
    assert said.startswith((bundle / "README.md").read_text())
    assert "## Origin" in said


def test_the_description_of_a_bundle_is_for_programs(bundle):
    about = json.loads((bundle / ABOUT).read_text())
    assert about["format"] == 1
    assert bundle.name == f"{about['name']}@{about['version']}"
