"""Configurations: met by the workflow before any job, so that nothing is built on them."""

import json

import yaml
from desk import Case, Desk

ROW = {"dataset_id": "a", "path": "a.h5ad"}


def plan(desk: Desk, text: str) -> list[str]:
    """`snakemake -n` with a configuration of this text."""
    (desk.folder / "mine.yaml").write_text(text)
    return ["snakemake", "-n", "--configfile", "mine.yaml"]


def configure(desk: Desk, row: dict[str, object] | None = None, **sections: object) -> list[str]:
    """`snakemake -n` with a configuration of one dataset."""
    rows = [ROW | (row or {})]
    return plan(desk, yaml.safe_dump({"atlas": "mine", "datasets": rows} | sections))


def repeat_key(desk: Desk) -> list[str]:
    return plan(desk, f"atlas: mine\ndatasets: {json.dumps([ROW])}\natlas: other\n")


def refuse_id(name: str, dataset_id: str) -> Case:
    """A row about an id that is no plain name."""
    says = ("config: `datasets.0.dataset_id: ", "Plain name of the dataset: letters, digits")
    return Case(f"id {name}", lambda desk: configure(desk, {"dataset_id": dataset_id}), says, 2)


CASES = (
    Case(
        "unknown key",
        lambda d: configure(d, pretrain={"epohcs": 3}),
        ("config: `pretrain.epohcs` is not a known key", "did you mean `epochs`?"),
        2,
    ),
    Case(
        "wrong type",
        lambda d: configure(d, pretrain={"epochs": "ten"}),
        ('config: `pretrain.epochs: "ten"`', "Write a number"),
        2,
    ),
    Case(
        "NO as an atlas",
        lambda d: plan(d, f"atlas: NO\ndatasets: {json.dumps([ROW])}\n"),
        ("config: `atlas: false`", "Quote it if it is meant as text"),
        2,
    ),
    Case(
        "NO as a donor",
        lambda d: plan(d, "atlas: mine\ndatasets: [{dataset_id: a, path: a.h5ad, donor: NO}]\n"),
        ("config: `datasets.0.donor: false`", "Quote it if it is meant as text"),
        2,
    ),
    Case("duplicate key", repeat_key, ("mine.yaml line 3: `atlas` again", "keep one"), 2),
    Case(
        "negative learning rate",
        lambda d: configure(d, pretrain={"learning_rate": -0.1}),
        ("config: `pretrain.learning_rate: -0.1`", "greater than 0"),
        2,
    ),
    Case(
        "missing dataset table",
        lambda d: configure(d, datasets="none.tsv"),
        ("none.tsv: not a readable dataset table", "No such file"),
        2,
    ),
    Case(
        "two ids that name the same files",
        lambda d: configure(d, datasets=[ROW, ROW | {"dataset_id": "A"}]),
        ("`A` and `a` name the same files", "Give each dataset its own id"),
        2,
    ),
    *(
        refuse_id(name, dataset_id)
        for name, dataset_id in {
            "outside": "../x",
            "absolute": "/x",
            "as a command": "a;b",
            "with spaces": "a b",
            "as a flag": "-rf",
            "of 300 characters": "x" * 300,
        }.items()
    ),
)
