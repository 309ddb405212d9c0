"""What is no bundle, or no longer the one that was built, is refused."""

import json
import shutil

import pytest
import torch

from tabatlas import cli
from tabatlas.annotate import Model
from tabatlas.bundle.verify import ABOUT, SUMS, name_version, verify_bundle
from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import digest_files, read_json, write_json
from tabatlas.train.checkpoint import read_tensors, write_tensors
from tabatlas.train.model import WEIGHTS


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle, to be broken."""
    return shutil.copytree(bundle, tmp_path / bundle.name)


def seal(folder):
    """Make hashes and version fit again, as one who builds a bundle by hand would."""
    files = {name: sha for name, sha in digest_files(folder).items() if name != SUMS}
    about = read_json(folder / ABOUT)
    write_json(about | {"version": name_version("0.1.0", files)}, folder / ABOUT)
    files = {name: sha for name, sha in digest_files(folder).items() if name != SUMS}
    (folder / SUMS).write_text("".join(f"{sha}  {name}\n" for name, sha in files.items()))


def change_tensor(folder, change):
    """Change the head of the classifier, and seal the bundle."""
    tensors, state = read_tensors(folder / WEIGHTS)
    name = "classifier/head.weight"
    write_tensors(tensors | {name: change(tensors[name])}, state, folder / WEIGHTS)
    seal(folder)


def flip_byte(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def remove_file(folder):
    (folder / "labels.json").unlink()


def edit_label(folder):
    (folder / "labels.json").write_text((folder / "labels.json").read_text().replace("0", "1"))


def edit_label_and_sums(folder):
    edit_label(folder)
    files = {name: sha for name, sha in digest_files(folder).items() if name != SUMS}
    (folder / SUMS).write_text("".join(f"{sha}  {name}\n" for name, sha in files.items()))


def edit_about(**values):
    def edit(folder):
        write_json(read_json(folder / ABOUT) | values, folder / ABOUT)

    return edit


def remove_sums(folder):
    (folder / SUMS).unlink()


def garble_about(folder):
    (folder / ABOUT).write_text("{")


def leave_folder(folder):
    (folder / SUMS).write_text(f"{'0' * 64}  ../secret\n")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (flip_byte, IntegrityError, "model.safetensors: its bytes are not those of SHA256SUMS"),
        (remove_file, IntegrityError, "labels.json: this file of the bundle is missing"),
        (edit_label, IntegrityError, "labels.json: its bytes are not those of SHA256SUMS"),
        (edit_label_and_sums, IntegrityError, "hashes do not make up the version 0.1.0"),
        (edit_about(format=2), ModelError, "bundle of format 2, but this tabatlas reads format 1"),
        (edit_about(version="9.9.9"), IntegrityError, "bundle.json: its bytes are not those"),
        (remove_sums, ModelError, "SHA256SUMS: missing, so this is no bundle"),
        (garble_about, ModelError, "bundle.json: not the description of a bundle"),
        (leave_folder, IntegrityError, "SHA256SUMS line 1: no hash of a file"),
        (shutil.rmtree, ModelError, "bundle.json: missing, so this is no bundle"),
    ],
)
def test_a_changed_bundle_is_refused_by_every_command(copy, capsys, change, error, message):
    change(copy)
    with pytest.raises(error, match=message):
        verify_bundle(copy)
    for command in (["verify", copy], ["models", "info", copy]):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(word) for word in command])
        assert caught.value.code == 4
        assert message in capsys.readouterr().err
    with pytest.raises(error, match=message):
        Model.load(copy, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head * torch.nan, "the weights `classifier/head.weight` hold NaN"),
        (lambda head: head[:, :-1], "weights do not fit the architecture"),
    ],
)
def test_weights_that_cannot_predict_are_refused(copy, change, message):
    """Hashes are right: whoever built it built it so."""
    change_tensor(copy, change)
    verify_bundle(copy)
    with pytest.raises(ModelError, match=message):
        Model.load(copy, "cpu")


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
