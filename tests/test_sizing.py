"""The sizing tables of the page about Slurm."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import sizing


def test_the_page_has_the_tables_that_the_arithmetic_gives():
    (table,) = sizing.PLACE.findall(sizing.PAGE.read_text())
    assert table.splitlines() == list(sizing.write_table()), "sizing.py --write"


def test_every_rule_that_computes_has_its_memory_counted():
    rules = sizing.read_memory()
    assert {"pretrain", "integrate", "perturb", "split", "pack", "seal"} <= rules.keys()
    assert set(sizing.PER_DATASET) < rules.keys()
    assert rules["pretrain"][0] >= 1000
    assert rules["pretrain"][1] > 0


def test_gpu_hours_grow_with_the_cells():
    small, large = (sum(sizing.count_gpu_hours(cells, 50).values()) for cells in (10**6, 10**8))
    assert abs(large / small - 100) < 1e-9
