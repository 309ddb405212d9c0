import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from small_unit import make_unit

from tabatlas.perturb.settings import PerturbSettings
from tabatlas.perturb.units import shoot_unit
from tabatlas.perturb.zeroshot import (
    ACTIVATED,
    KNOCKED_OUT,
    Network,
    find_direction,
    predict_zero_shot,
    read_controls,
)
from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder

SETTINGS = PerturbSettings(n_masks=3, threads=1, n_control_cells=6)


@pytest.fixture(scope="module")
def network():
    """A network of ten genes with random weights everywhere, so that every gene matters."""
    generator = torch.Generator().manual_seed(0)
    mean_g, sd_g = torch.linspace(0.5, 1.5, 10), torch.ones(10)
    architecture = Architecture(n_d=4, n_a=4, n_steps=1)
    encoder = Encoder(architecture, mean_g, sd_g, generator).eval()
    decoder = Decoder(architecture, mean_g, sd_g, generator).eval()
    with torch.no_grad():
        decoder.genes.weight.normal_(generator=generator)
    genes = pd.Index([f"ENSG{number:011d}" for number in range(10)])
    high_g = np.full(10, 4.0)
    high_g[9] = np.nan
    return Network(encoder, decoder, genes, high_g)


@pytest.fixture
def cells(network):
    values = sp.random(6, 7, 0.6, "csr", random_state=np.random.default_rng(0))
    return read_controls(network, make_unit().genes, values)


@pytest.mark.parametrize(
    ("strategy", "direction"),
    [
        ("CRISPR activation screen", ACTIVATED),
        ("CRISPRa", ACTIVATED),
        ("CRISPR interference screen", KNOCKED_OUT),
        ("CRISPRi", KNOCKED_OUT),
        ("CRISPR knockout mutant", KNOCKED_OUT),
        ("unknown", None),
        ("drug", None),
    ],
)
def test_the_strategy_says_which_way_a_target_goes(strategy, direction):
    assert find_direction(strategy) == direction


def test_what_the_screen_did_not_measure_is_missing_and_at_its_mean(network, cells):
    x_ng, missing_ng = cells
    assert missing_ng[:, 7:].all()
    assert not missing_ng[:, :7].any()
    torch.testing.assert_close(x_ng[0, 7:], network.decoder.standardize.mean_g[7:])


def test_activation_and_knock_out_have_different_effects_and_repeat(network, cells):
    up, again, down = (
        predict_zero_shot(network, cells, [2], direction, SETTINGS)
        for direction in (ACTIVATED, ACTIVATED, KNOCKED_OUT)
    )
    np.testing.assert_array_equal(up, again)
    assert np.abs(up).max() > 1e-6
    assert not np.allclose(up, down)


def test_a_target_that_the_screen_did_not_measure_can_be_perturbed(network, cells):
    effect_g = predict_zero_shot(network, cells, [8], KNOCKED_OUT, SETTINGS)
    assert np.abs(effect_g).max() > 1e-6


def test_setting_a_gene_to_what_it_was_changes_nothing(network, cells):
    x_ng, missing_ng = cells
    silent = x_ng.clone()
    silent[:, 2] = 0
    effect_g = predict_zero_shot(network, (silent, missing_ng), [2], KNOCKED_OUT, SETTINGS)
    assert (effect_g == 0).all()


def test_unknown_targets_and_unknown_genes_change_nothing(network):
    unit = make_unit()
    places = {"A": 2, "B": 9}
    controls = np.arange(10)
    ids = ["A", "B", "C"]
    effects = shoot_unit(unit, network, controls, ids, places, SETTINGS)
    assert np.abs(effects["A"]).max() > 1e-6
    assert (effects["B"] == 0).all()  # no training cell expresses it: there is no high value
    assert (effects["C"] == 0).all()  # no gene of the network


def test_without_a_known_strategy_nothing_is_shot(network):
    reason = shoot_unit(make_unit(strategy="drug"), network, np.arange(10), ["A"], {}, SETTINGS)
    assert "`drug` names neither activation nor knock-out" in reason
