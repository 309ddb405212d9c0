"""The screens of Norman et al. and McFaline-Figueroa et al., outside an atlas of blood."""

from pathlib import Path

import pytest

from real_atlas import DATA, NEEDS_CELLS, build_atlas
from tabatlas.provenance import read_json

pytestmark = [*NEEDS_CELLS, pytest.mark.slow]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores of both screens by the workflow, in a folder in which `data` is the real cells."""
    folder = tmp_path_factory.mktemp("norman")
    target = "results/norman/perturb/scores.json"
    build_atlas(Path(__file__).with_name("norman.yaml"), Path(DATA), folder, target)
    return read_json(folder / target)


@pytest.fixture(scope="module")
def k562(scores):
    (screen,) = [one for one in scores["screens"] if one["cell_line"] == "k562"]
    return screen


def test_known_doubles_come_near_the_ceiling(k562):
    doubles = next(one for one in k562["sets"] if one["name"] == "doubles")
    assert doubles["n_perturbations"] == 5
    assert doubles["can_rank"]
    methods = doubles["methods"]
    assert methods["centered_additive"]["pearson_perturbed"]["rescaled"]["value"] > 0.8
    assert methods["ceiling"]["pearson_perturbed"]["value"] > 0.85
    assert doubles["comparisons"]["mean"]["pearson_perturbed"]["low"] > 0.5


def test_all_singles_are_tested_and_no_network_is_credited(k562):
    singles = next(one for one in k562["sets"] if one["name"] == "singles")
    assert singles["n_perturbations"] == 18
    assert singles["head"] == "kernel ridge"
    assert singles["methods"]["mean"]["pearson_perturbed"]["value"] == 0


def test_targets_outside_the_panel_are_embedded_by_the_encoder_or_listed(k562):
    assert k562["expression"] == "log-normalized"
    assert (k562["n_targets"], k562["n_targets_measured"]) == (31, 1)
    assert 0 < len(k562["targets_without_embedding"]) < 15
    doubles = next(one for one in k562["sets"] if one["name"] == "doubles")
    assert "1 of 18 known targets are among the measured genes" in doubles["not_run"]["linear"]


def test_the_glioma_lines_cannot_rank_methods(scores):
    lines = [one for one in scores["screens"] if one["cell_line"] != "k562"]
    assert sorted(one["cell_line"] for one in lines) == ["A172", "T98G", "U87MG"]
    for line in lines:
        (singles,) = line["sets"]
        assert not singles["can_rank"]
        assert singles["best"] is None
        assert singles["head"] == "kernel ridge"
