import shutil

import pandas as pd
import pytest

from small_bundle import FOLDERS, SMALL, make_bundle
from tabatlas.bundle import stage
from tabatlas.bundle.card import escape_cell
from tabatlas.errors import IntegrityError
from tabatlas.integrate.model import restore_embedder
from tabatlas.provenance import digest_file, read_json, write_json
from tabatlas.train.model import Model, read_model


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


def test_a_bundle_holds_the_weights_of_every_stage(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    found = read_model(folder)
    # The small atlas has no screen, and so no head of perturbations.
    parts = {"encoder", "decoder", "classifier", "typical", "embedding"}
    assert {name.split("/")[0] for name in found.tensors} == parts
    about = read_json(folder / "embedding.json")
    embedder = restore_embedder(Model(about, found.genes, found.tensors))
    assert embedder.mean.weight.shape == (3, SMALL["n_d"])
    assert read_json(folder / "perturb.json")["heads"] == []
    importances = pd.read_parquet(folder / "importances.parquet")
    assert len(importances)
    metrics = read_json(folder / "metrics.json")
    assert metrics.keys() >= set(FOLDERS)


def test_settings_name_content_and_no_place(tmp_path):
    genes = tmp_path / "genes.txt"
    genes.write_text("ENSG00000141510\n")
    knobs = {
        "uri": "s3://bucket/atlas",
        "genes": str(genes),
        "markers": "simulate:demo_a",
        "datasets": [{"dataset_id": "norman", "path": "/somewhere/norman.h5ad"}],
    }
    assert stage.name_content(knobs) == {
        "genes": f"sha256:{digest_file(genes)}",
        "markers": "simulate:demo_a",
        "datasets": [{"dataset_id": "norman"}],
    }


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


@pytest.mark.parametrize("changed", ["finetune", "integrate"])
def test_a_model_of_another_encoder_is_refused(atlas, models, tmp_path, changed):
    for name in FOLDERS:
        shutil.copytree(models / name, tmp_path / name)
    about = read_json(tmp_path / changed / "config.json")
    write_json(about | {"encoder": "0" * 64}, tmp_path / changed / "config.json")
    with pytest.raises(IntegrityError, match="not trained from"):
        make_bundle(atlas, tmp_path, tmp_path / "out")


def test_the_card_states_scores_and_limits(atlas, models, tmp_path):
    folder, facts = make_bundle(atlas, models, tmp_path)
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# tiny@{facts['version']}\n")
    assert "logistic regression" in card
    assert "## Limits" in card
    assert "type1" in card
    for method in ("TabNet", "PCA", "Harmony on PCA"):
        assert f"| {method} |" in card


def test_labels_cannot_break_the_cards_table():
    assert escape_cell("a|b\n<script>") == r"a\|b \<script\>"


def test_the_card_says_who_gets_a_label(atlas, models, tmp_path):
    folder, _ = make_bundle(atlas, models, tmp_path)
    rows = read_json(folder / "metrics.json")["finetune"]["rejection"]["sets"]
    card = (folder / "README.md").read_text()
    for row in rows:
        name = row["cells"].replace("_", " ")
        assert f"| {name} | {100 * row['assigned']:.1f} % |" in card
