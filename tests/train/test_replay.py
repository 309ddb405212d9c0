"""Curves of a training for TensorBoard."""

import json
import math
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tabatlas.cli import main
from tabatlas.errors import InputError, UsageError
from tabatlas.train.replay import run

STEPS = [
    {"epoch": step // 4, "step": step + 1, "loss": math.exp(-step), "cells": "c0ffee"}
    for step in range(8)
]
EPOCHS = [
    {"epoch": e, "step": 4 * e + 4, "train_loss": 1.0, "validation_loss": 2.0} for e in (0, 1)
]
SPEED = [{"time": "2026-01-02T03:04:05Z", "step": 5, "cells_per_second": 900.5}]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    write_rows(tmp_path / "speed.jsonl", SPEED)
    return write_rows(tmp_path / "metrics.jsonl", STEPS[:4] + EPOCHS[:1] + STEPS[4:] + EPOCHS[1:])


def read_curves(logs: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve that TensorBoard would draw."""
    found = EventAccumulator(str(logs), size_guidance={"scalars": 0}).Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_every_number_of_the_metrics_is_a_point_of_a_curve(metrics, tmp_path):
    main(["replay", str(metrics), "--logs", str(tmp_path / "logs")])
    curves = read_curves(tmp_path / "logs")
    assert curves.keys() == {"loss", "train_loss", "validation_loss", "speed/cells_per_second"}
    assert curves["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in STEPS]
    assert curves["train_loss"] == [(4, 1.0), (8, 1.0)]
    assert curves["speed/cells_per_second"] == [(5, 900.5)]


def test_a_repeat_replaces_what_it_wrote_and_nothing_else(metrics, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    other = logs / "events.out.tfevents.1.other"
    other.touch()
    run(metrics, logs)
    write_rows(metrics, STEPS[:2])
    run(metrics, logs)
    assert len(list(logs.iterdir())) == 2
    assert other.exists()
    other.unlink()
    assert [step for step, _ in read_curves(logs)["loss"]] == [1, 2]


def test_the_speed_may_be_missing_or_have_lines_in_part(metrics, tmp_path):
    speed = tmp_path / "speed.jsonl"
    half = '{"time": "2026-01-02T03:0'
    row = json.dumps(SPEED[0] | {"step": 7})
    speed.write_text(speed.read_text() + f"{half}{row}\n{row}\n{half}")
    run(metrics, tmp_path / "logs")
    assert read_curves(tmp_path / "logs")["speed/cells_per_second"] == [(5, 900.5), (7, 900.5)]
    speed.unlink()
    run(metrics, tmp_path / "logs")
    assert "speed/cells_per_second" not in read_curves(tmp_path / "logs")


@pytest.mark.parametrize("damage", ['{"epoch": 1, "st', "[1]\n", "\xff\n"])
def test_damaged_metrics_are_named_with_the_line_and_leave_the_old_curves(
    metrics, tmp_path, damage
):
    run(metrics, tmp_path / "logs")
    before = list((tmp_path / "logs").iterdir())
    with open(metrics, "a", encoding="latin-1") as file:
        file.write(damage)
    with pytest.raises(InputError, match=r"metrics\.jsonl:11: not a readable row"):
        run(metrics, tmp_path / "logs")
    assert list((tmp_path / "logs").iterdir()) == before


def test_rows_of_something_else_are_named(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"loss": 1.0}])
    with pytest.raises(InputError, match=r"rows\.jsonl: a row has no `step`"):
        run(path, tmp_path / "logs")


def test_metrics_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl: not a readable row .*No such file"):
        run(tmp_path / "metrics.jsonl", tmp_path / "logs")


def test_without_tensorboard_the_message_says_what_to_install(metrics, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        run(metrics, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
