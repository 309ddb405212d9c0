"""How what Slurm and the rules say is read."""

from collections import Counter

import pytest

from tabatlas.doctor.findings import TRAININGS
from tabatlas.doctor.partitions import Node, read_gpus, read_minutes
from tabatlas.doctor.profile import A_NODE, read_rules, split_gres
from tabatlas.provenance import PACKAGE


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", float("inf")),
        ("30:00", 30),
        ("2:00:00", 120),
        ("1-00:00:00", 1440),
        ("7-12:30:00", 10830),
    ],
)
def test_times_are_read_as_slurm_writes_them(text, minutes):
    assert read_minutes(text) == minutes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,1),gpu:1g.10gb:7(S:1),lustre:1", {"a100": 2, "1g.10gb": 7}),
    ],
)
def test_gpus_of_a_node_are_counted_by_type(gres, gpus):
    assert read_gpus(gres) == gpus


@pytest.mark.parametrize(
    ("text", "parts"),
    [("gpu", ("gpu", "", 1)), ("gpu:2", ("gpu", "", 2)), ("gpu:h100:3", ("gpu", "h100", 3))],
)
def test_a_generic_resource_has_name_type_and_number(text, parts):
    assert split_gres(text) == parts


@pytest.mark.parametrize(
    ("state", "usable"),
    [
        ("idle", True),
        ("idle~", True),
        ("mixed", True),
        ("allocated+", True),
        ("planned", True),
        ("idle*", False),
        ("down*", False),
        ("drained", False),
        ("draining", False),
        ("maint", False),
    ],
)
def test_a_node_takes_jobs_or_will_when_it_is_started(state, usable):
    assert Node("n1", "n1", 1000, state, Counter()).is_usable == usable


def test_what_rules_ask_for_is_found_in_their_files():
    rules = read_rules(PACKAGE.parents[1] / "rules")
    assert not {"all", "settings", "dataset_settings"} & rules.keys()  # no jobs of Slurm
    assert {"qc", "append", "report", *TRAININGS} <= rules.keys()
    assert {rule for rule, own in rules.items() if own.get("gpu") == A_NODE} == TRAININGS.keys()
    assert {rule for rule, own in rules.items() if own.get("gpu") == 1} == {"explain", "perturb"}
    for rule, own in rules.items():
        assert own["runtime"] >= 10, rule
        assert own["mem_mb"] >= 1500, rule
