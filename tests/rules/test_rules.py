"""The workflow itself, on a tiny atlas that is built once."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import yaml

from tabatlas import names
from tabatlas.experiment import open_experiment
from tabatlas.provenance import digest_file
from tiny_atlas import ROOT, TINY, Workdir

PER_DATASET = {"fetch", "qc", "normalize"}
AFTER_FINETUNE = {"replicate", "explain", "bundle", "report"}
AFTER_PRETRAIN = {"finetune", "integrate", "perturb"} | AFTER_FINETUNE
AFTER_INGEST = {"split", "pack", "pretrain"} | AFTER_PRETRAIN
INGEST = {"register", "append", "seal"}


def slow(*values):
    """What differs from a case that CI runs by the stage alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def test_the_tiny_atlas_ends_at_its_report(built):
    page = built.path / "results" / "tiny" / "report" / "index.html"
    assert page.read_text().startswith("<!doctype html>")
    bundle = json.loads((built.path / "results" / "tiny" / "bundle" / "bundle.json").read_text())
    assert (page.parents[1] / "bundle" / bundle["path"] / "SHA256SUMS").is_file()


def test_a_second_run_has_nothing_to_do(built):
    assert built.plan(*built.configure()) == set()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"report": {"title": "Another"}}, {"report"}),
        slow({"bundle": {"version": "0.2.0"}}, {"bundle", "report"}),
        slow({"explain": {"n_top": 10}}, {"explain", "bundle", "report"}),
        ({"explain": {"replicates": 2}}, AFTER_FINETUNE),
        slow({"perturb": {"n_masks": 2}}, {"perturb", "bundle", "report"}),
        slow({"integrate": {"kl_weight": 2.0}}, {"integrate", "bundle", "report"}),
        ({"finetune": {"learning_rate": 0.001}}, {"finetune"} | AFTER_FINETUNE),
        ({"pretrain": {"epochs": 2}}, {"pretrain"} | AFTER_PRETRAIN),
        slow({"split": {"seed": 1}}, AFTER_INGEST),
        slow({"qc": {"min_counts": 2}}, {"qc", "normalize"} | INGEST | AFTER_INGEST),
        ({"fetch": {"min_mapped_genes": 0.2}}, PER_DATASET | INGEST | AFTER_INGEST),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_knob_reruns_its_stage_and_what_follows(built, change, wanted):
    assert built.plan(*built.configure(**change)) == wanted


def test_a_changed_dataset_row_reruns_that_dataset_only(built):
    rows = [TINY["datasets"][0], TINY["datasets"][1] | {"collection": "other"}]
    done = built.snakemake("--cores", "1", "-n", *built.configure(datasets=rows))
    fetched = re.findall(r"output: results/tiny/fetch/(\w+).h5ad", done.stdout + done.stderr)
    assert fetched == ["two"]


# Its id stands before the others: every cell of theirs gets another joinid.
ADDED = {"dataset_id": "another", "path": "simulate:demo_b"}


def test_an_added_dataset_is_read_alone_and_then_everything_follows(built):
    change = built.configure(datasets=[*TINY["datasets"], ADDED])
    done = built.snakemake("--cores", "1", "-n", *change)
    jobs = done.stdout + done.stderr
    for stage in PER_DATASET:
        found = re.findall(rf"output: results/tiny/{stage}/(\w+)\.h5ad", jobs)
        assert found == ["another"], stage
    # The experiment of three datasets is another one, into which all three are written.
    appended = re.findall(r"output: results/tiny/ingest/append/(\w+)\.json", jobs)
    assert set(appended) == {"another", "one", "two"}
    assert built.plan(*change) == {"simulate"} | PER_DATASET | INGEST | AFTER_INGEST


@pytest.mark.slow
def test_an_atlas_that_grew_leaves_the_old_bundle_and_the_old_experiment_as_they_were(
    built, tmp_path
):
    grown = Workdir(tmp_path / "grown")
    shutil.copytree(built.path, grown.path)
    results = grown.path / "results" / "tiny"
    old = json.loads((results / "bundle" / "bundle.json").read_text())
    old_manifest = results / "ingest" / "old.json"
    shutil.copy(results / "ingest" / "manifest.json", old_manifest)
    cells = read_experiment(old_manifest)
    untouched = [results / stage / "one.h5ad" for stage in sorted(PER_DATASET)]
    written = [path.stat().st_mtime_ns for path in untouched]
    change = grown.configure(datasets=[*TINY["datasets"], ADDED])
    grown.snakemake("--cores", "2", *change)
    assert [path.stat().st_mtime_ns for path in untouched] == written
    new = json.loads((results / "bundle" / "bundle.json").read_text())
    assert new["path"] != old["path"]
    for bundle in (old, new):
        folder = results / "bundle" / bundle["path"]
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        sums = {path: sha for sha, path in (line.split("  ") for line in lines)}
        assert sums == bundle["files"]
        assert {path: digest_file(folder / path) for path in sums} == sums
    assert read_experiment(old_manifest) == cells
    grew = read_experiment(results / "ingest" / "manifest.json")
    assert grew.keys() > cells.keys()
    assert {name: grew[name] for name in cells} == cells
    assert grown.plan(*change) == set()


def read_experiment(manifest):
    """Cells of a sealed experiment, and of each the sum of its counts by gene's place."""
    with open_experiment(manifest) as experiment:
        obs = experiment.read_obs([names.OBS_ID])
        counts = experiment.read_counts(obs[names.JOINID].to_numpy())
    marks = (counts @ np.arange(1, counts.shape[1] + 1)).tolist()
    return dict(zip(obs[names.OBS_ID], marks, strict=True))


@pytest.mark.parametrize(
    ("edited", "wanted"),
    [
        slow("report/wording.py", {"report"}),
        slow("explain/markers.py", AFTER_FINETUNE),
        slow("integrate/sample.py", {"integrate", "bundle", "report"}),
        ("finetune/calibrate.py", {"finetune"} | AFTER_FINETUNE),
        # A library: the stages that use it, and what follows.
        ("tabnet/decoder.py", {"pretrain"} | AFTER_PRETRAIN),
        slow("qc/judge.py", {"qc", "normalize"} | INGEST | AFTER_INGEST),
        ("cli.py", set()),
    ],
)
def test_an_edit_of_code_reruns_what_uses_it_and_what_follows(built, tmp_path, edited, wanted):
    package = tmp_path / "workflow" / "src"
    shutil.copytree(ROOT / "workflow" / "src", package)
    shutil.copytree(ROOT / "resources", tmp_path / "resources")
    with open(package / "tabatlas" / edited, "a") as file:
        file.write("\n# edited\n")
    assert built.plan(*built.configure(), package=package) == wanted


def test_the_embedded_demo_is_the_default(tmp_path):
    done = Workdir(tmp_path).snakemake("--cores", "1", "-n")
    assert "results/demo/report/index.html" in done.stdout + done.stderr
    assert not list(tmp_path.glob("results/**/*.json"))


def test_no_value_of_the_demo_reaches_another_atlas(tmp_path):
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    assert demo["split"]["test_fraction"] != 0.2
    workdir = Workdir(tmp_path)
    minimal = {"atlas": "other", "datasets": TINY["datasets"]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(minimal))
    done = workdir.snakemake(
        "results/other/settings/split.json", "--cores", "1", "--configfile", "other.yaml"
    )
    assert "results/demo" not in done.stdout + done.stderr
    written = json.loads((tmp_path / "results/other/settings/split.json").read_text())
    assert written["test_fraction"] == 0.2


def test_another_atlas_by_option_alone_is_no_demo_with_another_name(tmp_path):
    done = Workdir(tmp_path).snakemake("-n", "--config", "atlas=mine", check=False)
    assert done.returncode == 2
    assert "`datasets` is missing" in done.stderr


def test_a_screen_outside_the_atlas_is_read_before_it_is_predicted(built):
    row = {"dataset_id": "screen", "path": "screen.h5ad"}
    (built.path / "screen.h5ad").write_bytes(b"no h5ad")
    change = built.configure(perturb={"datasets": [row]})
    assert built.plan(*change) == {"read_screen", "perturb", "bundle", "report"}
    done = built.snakemake("results/tiny/perturb/screens/screen.h5ad", "-c1", *change, check=False)
    assert "screen.h5ad: not a readable h5ad" in done.stdout + done.stderr


def test_a_gene_list_is_an_input(built):
    genes = built.path / "genes.txt"
    genes.write_text("ENSG00000167286\nENSG00000010610\n")
    change = built.configure(pack={"genes": str(genes)})
    done = built.snakemake("--cores", "1", "-n", *change)
    assert re.search(r"input:.*genes\.txt", done.stdout + done.stderr)


def test_markers_are_simulated_a_file_or_none(built):
    path = built.path / "markers.tsv"
    path.write_text("cell_type\tgene\n")
    for markers, wanted in ((str(path), r"markers\.tsv"), (None, None)):
        change = built.configure(explain={"markers": markers})
        done = built.snakemake("--cores", "1", "-n", *change)
        (inputs,) = re.findall(r"rule explain:\n    input: (.*)", done.stdout + done.stderr)
        assert bool(re.search(r"\.tsv", inputs)) == bool(wanted)


@pytest.mark.parametrize(
    "name", ["a;touch hacked", *map(slow, ["../x", "/abs", "a b", "-rf", "x" * 300])]
)
def test_a_dataset_id_that_is_no_plain_name_is_refused(tmp_path, name):
    workdir = Workdir(tmp_path)
    rows = [{"dataset_id": name, "path": "simulate:demo_a"}]
    done = workdir.snakemake("-n", *workdir.configure(datasets=rows), check=False)
    assert done.returncode == 2
    assert "dataset_id" in done.stderr
    assert not (tmp_path / "hacked").exists()


def test_names_of_files_that_look_like_shell_code_stay_names(tmp_path):
    workdir = Workdir(tmp_path)
    rows = [{"dataset_id": "a", "path": "x $(touch hacked);touch hacked2 'q.h5ad"}]
    (tmp_path / rows[0]["path"]).write_bytes(b"no h5ad")
    done = workdir.snakemake(
        "results/tiny/fetch/a.h5ad", "--cores", "1", *workdir.configure(datasets=rows), check=False
    )
    assert "not a readable h5ad" in done.stdout + done.stderr
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "hacked2").exists()
    assert not (tmp_path / "results/tiny/fetch/a.h5ad").exists()


def test_a_dry_run_imports_neither_torch_nor_scanpy(tmp_path):
    blocked = tmp_path / "blocked"
    for name in ("torch", "scanpy", "tiledbsoma", "anndata"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('too slow for a dry run')")
    package = f"{blocked}{os.pathsep}{ROOT / 'workflow' / 'src'}"
    workdir = Workdir(tmp_path)
    done = workdir.snakemake("--cores", "1", "-n", *workdir.configure(), package=package)
    assert "too slow" not in done.stdout + done.stderr


def test_every_rule_that_computes_says_what_it_needs():
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        if path.name in ("common.smk", "settings.smk"):
            continue
        for rule in path.read_text().split("\nrule ")[1:]:
            for part in ("log:", "benchmark:", "conda:", "resources:", "mem_mb", "runtime"):
                assert part in rule, f"{path.name}: {rule.split(':')[0]} lacks {part}"
            assert not re.search(r"^    (run|message):", rule, re.MULTILINE)
            # Snakemake pastes values into shell code; `:q` quotes them. Resources are numbers, and
            # words of our own.
            command = rule.split("shell:")[1]
            assert not re.search(r"\{(?!resources\.)[^}]*(?<!:q)\}", command)
