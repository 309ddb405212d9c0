"""Atlases that no classifier can be learnt from, or only in part."""

import json
from pathlib import Path

import anndata as ad
import pandas as pd
from desk import Case, Desk, spell

from small_atlas import Atlas, make_typed
from synthetic import make_experiment, write_normalized
from tabatlas import names
from tabatlas.pretrain import stage as pretrain

ENCODER = {"architecture": {"n_d": 4, "n_a": 4, "n_steps": 1}, "epochs": 0, "threads": 1}


def relabel(path: Path, labels: list[str]) -> None:
    """Give the cells of a normalized h5ad these labels in turn, and donors of their own."""
    adata = ad.read_h5ad(path)
    own = [labels[number % len(labels)] for number in range(adata.n_obs)]
    adata.obs[names.CELL_TYPE] = pd.Categorical(own)
    adata.obs[names.CELL_TYPE_ID] = pd.Categorical([names.UNKNOWN] * adata.n_obs)
    donors = path.stem + adata.obs[names.DONOR_ID].astype(str)
    adata.obs[names.DONOR_ID] = donors.astype("category")
    write_normalized(adata, path)


def finetune(desk: Desk, labels: dict[str, list[str]], **split: object) -> list[str]:
    """`tabatlas finetune` of an atlas whose datasets have these labels."""
    folder = desk.folder / "atlas"
    sources = [make_typed(folder / f"{name}.h5ad", name, 60, n_donors=6) for name in labels]
    for path, own in zip(sources, labels.values(), strict=True):
        relabel(path, own)
    make_experiment(folder / "ingest", sources)
    atlas = Atlas(folder)
    atlas.run_split(**split)
    atlas.run_pack()
    settings = atlas.settings("pretrain", **ENCODER)
    pretrain.run(atlas.pack, settings, folder / "checkpoints", folder / "encoder")
    flags = {"encoder": folder / "encoder", "pack": atlas.pack, "manifest": atlas.manifest}
    flags |= {"split": atlas.cells, "proof": atlas.proof}
    flags |= {"settings": desk.settle("finetune", epochs=1, threads=1)}
    return spell("finetune", flags | {"checkpoints": folder / "steps", "model": desk.out})


def count_unseen(desk: Desk) -> None:
    """The class is no class; its test cells are counted, not scored."""
    classes = [one["label"] for one in json.loads((desk.out / "labels.json").read_text())]
    scores = json.loads((desk.out / "scores.json").read_text())
    assert classes == ["one", "two"]
    assert scores["n_unseen_test_cells"] == 20


EACH_ITS_OWN = [f"type {number}" for number in range(60)]
CASES = (
    Case(
        "one class only",
        lambda d: finetune(d, {"a": ["one"]}),
        ("labelled training cells make 1 classes", "two are needed", "Check `cell_type`"),
    ),
    Case(
        "no label at all",
        lambda d: finetune(d, {"a": [names.UNKNOWN]}),
        ("0 labelled training cells make 0 classes", "two are needed", "Check `cell_type`"),
    ),
    Case(
        "a label for every cell",
        lambda d: finetune(d, {"a": EACH_ITS_OWN}),
        ("make 0 classes of at least 5 cells", "`finetune.min_class_cells`"),
    ),
    Case(
        "a class only in the test split",
        lambda d: finetune(
            d, {"a": ["one", "two"], "b": ["one", "two", "three"]}, held_out_datasets=["b"]
        ),
        (),
        0,
        count_unseen,
    ),
)
