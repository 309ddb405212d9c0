"""The results of every stage on the small atlas, and the bundle made of them."""

from tabatlas.bundle import stage
from tabatlas.explain import stage as explain
from tabatlas.finetune import stage as finetune
from tabatlas.integrate import stage as integrate
from tabatlas.perturb import stage as perturb
from tabatlas.pretrain import stage as pretrain
from tabatlas.provenance import read_json, write_json

SMALL = {"n_d": 4, "n_a": 4, "n_steps": 1, "n_shared": 1, "n_independent": 1}
FOLDERS = ("pretrain", "finetune", "integrate", "perturb", "explain")
EXPLAINED = ("masks", "importances", "types", "steps")
TRAINING = {"epochs": 1, "batch_size": 64, "threads": 1}


def make_models(atlas, folder):
    """Write the results of every stage that a bundle takes in."""
    run_trainings(atlas, folder)
    (folder / "explain").mkdir()
    given = (atlas.pack, atlas.manifest, atlas.cells, [], folder / "training.json")
    tables = (folder / "explain" / f"{name}.parquet" for name in EXPLAINED)
    scores = folder / "explain" / "scores.json"
    classifier = folder / "finetune"
    explain.attribute(classifier, [classifier], *given, folder / "empty.json", *tables, scores)
    folds = atlas.cells.with_name("perturbations.parquet")
    given = (atlas.pack, atlas.manifest, atlas.cells, folds, atlas.proof, [], [])
    perturb.predict(folder / "pretrain", *given, folder / "empty.json", folder / "perturb")


def run_trainings(atlas, folder):
    """Pretrain, fine-tune and integrate, one epoch each."""
    settings = {
        "pretraining": {"architecture": SMALL},
        "training": {},
        "embedding": {"n_latent": 3},
    }
    for name, knobs in settings.items():
        write_json(TRAINING | knobs, folder / f"{name}.json")
    write_json({}, folder / "empty.json")
    encoder, checkpoints = folder / "pretrain", folder / "checkpoints"
    pretrain.run(atlas.pack, folder / "pretraining.json", checkpoints, encoder)
    given = (atlas.pack, atlas.manifest, atlas.cells, atlas.proof, folder / "training.json")
    finetune.run(encoder, *given, checkpoints, folder / "finetune")
    tables = (folder / "integrate" / f"{name}.parquet" for name in ("embedding", "layout"))
    given = (atlas.pack, atlas.manifest, folder / "embedding.json", checkpoints)
    integrate.run(encoder, *given, *tables, folder / "integrate")


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
        *(models / name for name in FOLDERS),
        paths,
        folder / "bundles",
        folder / "bundle.json",
    )
    facts = read_json(folder / "bundle.json")
    return folder / "bundles" / facts["path"], facts
