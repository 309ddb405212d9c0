import io
import json
import logging
import sys

import pytest
import torch

from tabatlas.errors import Interrupted
from tabatlas.train import pace as pace_module
from tabatlas.train.pace import Pace

CPU = torch.device("cpu")


class Always:
    """Who owns the folder for ever."""

    token = 1

    def check(self):
        pass


class TakenOver(Always):
    """Who owns it no longer."""

    def check(self):
        raise Interrupted("another owner")


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def __getattr__(self, name):
            return getattr(pace_time, name)

    pace_time, found = pace_module.time, Clock()
    monkeypatch.setattr(pace_module, "time", found)
    return found


def test_an_interval_becomes_a_row_and_a_line(tmp_path, clock, caplog):
    pace = Pace(tmp_path, CPU, Always())

    def slowly():
        for number in range(4):
            clock.now += 6
            yield number

    with caplog.at_level(logging.INFO):
        for number in pace.await_each(slowly()):
            clock.now += 4
            pace.count("epoch 1/9", number + 1, 0.25, 300)
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [(row["step"], row["seconds"]) for row in rows] == [(3, 30.0)]
    assert rows[0]["cells_per_second"] == 30.0
    assert rows[0]["waiting_share"] == 0.6
    assert rows[0]["memory_mb"] > 10
    assert caplog.messages == [
        "epoch 1/9: step 3, loss 0.2500, 30 cells/s, 60 % of the time waiting for cells"
    ]


def test_time_of_a_checkpoint_is_told_apart(tmp_path, clock):
    pace = Pace(tmp_path, CPU, Always())
    clock.now += 31
    assert pace.unsaved() == 31
    with pace.spending("saving"):
        clock.now += 3.4
    assert pace.unsaved() == 0
    pace.count("epoch 1/1", 1, 0.0, 1)
    assert json.loads((tmp_path / "speed.jsonl").read_text())["saving_share"] == 0.0988


def test_the_end_cuts_an_interval_short(tmp_path, clock):
    pace = Pace(tmp_path, CPU, Always())
    pace.close(0)
    assert not list(tmp_path.iterdir())
    clock.now += 2
    pace.count("epoch 1/1", 1, 0.0, 50)
    pace.close(1)
    row = json.loads((tmp_path / "speed.jsonl").read_text())
    assert (row["step"], row["seconds"], row["cells_per_second"]) == (1, 2.0, 25.0)


def test_who_owns_the_folder_no_longer_writes_nothing(tmp_path, clock):
    pace = Pace(tmp_path, CPU, TakenOver())
    clock.now += 31
    with pytest.raises(Interrupted, match="another owner"):
        pace.count("epoch 1/1", 1, 0.0, 1)
    assert not list(tmp_path.iterdir())


def test_ranks_but_the_first_are_mute(tmp_path, clock, caplog):
    pace = Pace(tmp_path, CPU, None)
    clock.now += 31
    with pace.show_bar("epoch 1/1", 0, 3):
        pace.count("epoch 1/1", 1, 0.0, 1)
    assert not list(tmp_path.iterdir())
    assert not caplog.messages


def test_a_full_disk_ends_resumably(tmp_path, clock):
    (tmp_path / "speed.jsonl").mkdir()
    pace = Pace(tmp_path, CPU, Always())
    clock.now += 31
    with pytest.raises(Interrupted, match=r"speed\.jsonl: not written"):
        pace.count("epoch 1/1", 1, 0.0, 1)


def test_a_terminal_gets_a_bar_that_goes_away(tmp_path, clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    pace = Pace(tmp_path, CPU, Always())
    with pace.show_bar("epoch 2/9", 1, 4):
        for step in (2, 3):
            pace.bar.mininterval = 0
            pace.count("epoch 2/9", step, 0.5, 10)
    shown = terminal.getvalue()
    assert "epoch 2/9" in shown
    assert "3/4" in shown
    assert "loss=0.5000" in shown
    assert pace.bar is None
