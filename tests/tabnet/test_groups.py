"""Groups of genes: one entry of a mask for all of them, in both forms."""

import pytest
import torch
from both_forms import classify, compare_forms, draw_cells, draw_network

from tabatlas.tabnet.entries import GeneSets, from_dense
from tabatlas.tabnet.groups import MaskGroups

N_CELLS, N_GENES = 30, 40
# The first two share a gene, the last is all but one gene of the third.
GROUPS = ([1, 2, 3, 4], [4, 30], [8, 9, 10, 11, 12], [8, 9, 10, 11])
N_ALONE = N_GENES - 10


@pytest.fixture
def groups() -> MaskGroups:
    return MaskGroups(N_GENES, GROUPS, widths=(1, 3)).double()


def draw_mask(groups, generator):
    share = torch.rand(N_CELLS, len(groups), generator=generator, dtype=torch.float64)
    return share * (torch.rand(share.shape, generator=generator) < 0.2)


def draw_hidden(generator):
    hidden_mg = torch.rand(2, N_GENES, generator=generator) < 0.3
    hidden_mf = torch.nn.functional.pad(hidden_mg, (0, 4))
    return GeneSets(torch.arange(N_CELLS) % 2, hidden_mf)


def test_a_mask_is_divided_alike_over_what_its_entry_covers(groups):
    assert len(groups) == len(GROUPS) + N_ALONE + 2
    mask_nq = torch.zeros(1, len(groups)).double()
    mask_nq[0, [0, 1, 4, -1]] = torch.tensor([0.4, 0.2, 0.1, 0.3]).double()
    mask_nf = groups.spread(mask_nq, torch.zeros(1, N_GENES + 4))
    expected_f = torch.zeros(N_GENES + 4).double()
    expected_f[0] = 0.1  # the first gene that is in no group
    expected_f[1:4] = 0.1
    expected_f[4] = 0.1 + 0.1  # of both its groups
    expected_f[30] = 0.1
    expected_f[-3:] = 0.1
    assert torch.allclose(mask_nf[0], expected_f)


def test_without_groups_and_wide_covariates_a_mask_is_as_it_was(generator):
    plain = MaskGroups(N_GENES, (), widths=(1, 1))
    mask_nq = draw_mask(plain, generator)
    assert plain.spread(mask_nq, torch.zeros(1, N_GENES + 2)) is mask_nq
    mask = from_dense(mask_nq)
    assert plain.spread_entries(mask, draw_hidden(generator)) is mask


def test_entries_are_spread_as_a_dense_mask_is(groups, generator):
    hidden = draw_hidden(generator)
    mask = from_dense(draw_mask(groups, generator))
    value = mask.value.requires_grad_()
    expected_nf = groups.spread(mask.to_dense(len(groups)), hidden.to_dense().double())
    spread = groups.spread_entries(mask, hidden)
    found_nf = torch.zeros_like(expected_nf).index_put(
        (spread.rows(), spread.gene.long()), spread.value, accumulate=True
    )
    assert torch.allclose(found_nf, expected_nf, rtol=0, atol=1e-15)
    for row in spread.gene.split(spread.indptr.diff().tolist()):
        assert (row.diff() >= 0).all()
    weight_nf = torch.randn(expected_nf.shape, generator=generator, dtype=torch.float64)
    slopes = [torch.autograd.grad(one, value, weight_nf)[0] for one in (found_nf, expected_nf)]
    assert torch.allclose(*slopes, rtol=0, atol=1e-15)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scaling", ["deviation", "batchnorm"])
@pytest.mark.parametrize("mask_type", ["sparsemax", "entmax"])
def test_both_forms_agree(mask_type, scaling, training, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator)
    knobs = {"mask_type": mask_type, "scaling": scaling, "n_steps": 3}
    network = draw_network(cells, generator, groups=GROUPS, **knobs).train(training)
    compare_forms(network, cells)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_group_is_selected_while_one_of_its_genes_is_seen(form, generator):
    cells = draw_cells(N_CELLS, N_GENES, generator, with_covariates=False)
    cells.hidden.member_mg[:] = False
    cells.hidden.member_mg[0, [1, 2, 3]] = True
    cells.hidden.member_mg[1, [1, 2, 3, 4]] = True
    network = draw_network(cells, generator, 1e-4, GROUPS)
    _, _, masks_snq = classify(network, form, cells)
    selected_sn = masks_snq[..., 0] > 0
    assert torch.equal(selected_sn[0], cells.hidden.set_n != 1)
    masks_sng = network.encoder.groups.spread(masks_snq[0], cells.hidden.to_dense().double())
    assert not masks_sng[cells.hidden.to_dense()].any()
    assert (masks_sng[~cells.hidden.to_dense()] > 0).all()


def test_groups_of_one_gene_are_no_groups(generator):
    cells = draw_cells(N_CELLS, N_GENES, generator, with_covariates=False)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    plain = draw_network(cells, seeds[0])
    single = draw_network(cells, seeds[1], groups=[[gene] for gene in range(N_GENES)])
    expected, *_ = classify(plain, "dense", cells)
    for form in ("dense", "sparse"):
        assert torch.allclose(classify(single, form, cells)[0], expected, rtol=0, atol=1e-12)
