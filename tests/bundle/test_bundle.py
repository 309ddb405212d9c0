import json

import pytest

from tabatlas.bundle import stage
from tabatlas.bundle.card import escape_cell
from tabatlas.errors import IntegrityError
from tabatlas.finetune import stage as finetune
from tabatlas.pretrain import stage as pretrain
from tabatlas.provenance import digest_file, read_json, write_json
from tabatlas.train.model import digest_genes, read_model

SMALL = {"n_d": 4, "n_a": 4, "n_steps": 1, "n_shared": 1, "n_independent": 1}
TRAINING = {"epochs": 1, "batch_size": 64, "threads": 1}


@pytest.fixture(scope="module")
def models(atlas, tmp_path_factory):
    """A folder with `pretrain/` and `finetune/`."""
    folder = tmp_path_factory.mktemp("models")
    settings = folder / "settings.json"
    settings.write_text(json.dumps(TRAINING | {"architecture": SMALL}))
    pretrain.run(atlas.pack, settings, folder / "checkpoints", folder / "pretrain")
    settings.write_text(json.dumps(TRAINING))
    given = (atlas.pack, atlas.manifest, atlas.cells, atlas.proof, settings)
    finetune.run(folder / "pretrain", *given, folder / "checkpoints", folder / "finetune")
    return folder


def make_bundle(atlas, models, folder, *, bundle=None, **settings):
    """Run the stage; return the bundle's folder and `bundle.json`."""
    knobs = {"bundle": bundle or {}, "qc": {}} | settings
    paths = []
    for name, values in knobs.items():
        paths.append(folder / "settings" / f"{name}.json")
        write_json(values, paths[-1])
    source = folder / "fetch" / "a.json"
    write_json({"dataset_id": "a", "sha256": "0" * 64, "source": "/somewhere/a.h5ad"}, source)
    stage.run(
        "tiny",
        [source],
        atlas.manifest,
        atlas.proof,
        models / "pretrain",
        models / "finetune",
        paths,
        folder / "bundles",
        folder / "bundle.json",
    )
    facts = read_json(folder / "bundle.json")
    return folder / "bundles" / facts["path"], facts


def test_two_builds_have_the_same_version_and_bytes(atlas, models, tmp_path):
    first, facts = make_bundle(atlas, models, tmp_path / "one")
    second, again = make_bundle(atlas, models, tmp_path / "two")
    assert facts == again
    assert first.name == second.name == f"tiny@{facts['version']}"
    assert stage.digest_files(first) == stage.digest_files(second)


def test_a_bundle_proves_itself(atlas, models, tmp_path):
    folder, facts = make_bundle(atlas, models, tmp_path)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: sha256 for sha256, name in (line.split("  ") for line in lines)}
    assert sums == facts["files"]
    assert set(sums) == set(stage.digest_files(folder)) - {"SHA256SUMS"}
    for name, sha256 in sums.items():
        assert digest_file(folder / name) == sha256
    assert {"README.md", "labels.json", "calibration.json", "settings/qc.json"} <= set(sums)


def test_a_bundle_holds_encoder_decoder_and_classifier(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    found = read_model(folder)
    assert {name.split("/")[0] for name in found.tensors} == {"encoder", "decoder", "classifier"}


@pytest.mark.parametrize("settings", [{"qc": {"min_counts": 7}}, {"bundle": {"version": "0.2.0"}}])
def test_another_setting_is_another_version(atlas, models, tmp_path, settings):
    _, before = make_bundle(atlas, models, tmp_path / "before")
    _, after = make_bundle(atlas, models, tmp_path / "after", **settings)
    assert before["version"] != after["version"]


def test_no_file_of_a_bundle_tells_where_it_was_built(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(tmp_path).encode() not in content
            assert b"/somewhere" not in content
            assert b'"timestamp"' not in content


def test_building_again_keeps_what_is_there(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    before = folder.stat().st_mtime_ns
    assert make_bundle(atlas, models, tmp_path)[0] == folder
    assert folder.stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_changed_bundle_of_the_same_version_is_an_error(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    (folder / "labels.json").write_text("[]")
    with pytest.raises(IntegrityError, match="not those that its version names"):
        make_bundle(atlas, models, tmp_path)


def test_a_classifier_of_another_encoder_is_refused(atlas, models, tmp_path):
    for name in ("pretrain", "finetune"):
        for path in (models / name).iterdir():
            target = tmp_path / name / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    about = read_json(tmp_path / "finetune" / "config.json")
    genes = tmp_path / "finetune" / "genes.parquet"
    table = read_model(tmp_path / "finetune").genes.iloc[::-1]
    table.to_parquet(genes, index=False)
    write_json(about | {"genes_digest": digest_genes(table)}, tmp_path / "finetune" / "config.json")
    with pytest.raises(IntegrityError, match="not trained from"):
        make_bundle(atlas, tmp_path, tmp_path / "out")


def test_the_card_states_scores_and_limits(atlas, models, tmp_path):
    folder, facts = make_bundle(atlas, models, tmp_path)
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# tiny@{facts['version']}\n")
    assert "logistic regression" in card
    assert "## Limits" in card
    assert "type1" in card


def test_labels_cannot_break_the_cards_table():
    assert escape_cell("a|b\n<script>") == r"a\|b \<script\>"
