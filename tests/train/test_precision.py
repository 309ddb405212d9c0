"""Steps of training under bfloat16 autocast: they run, and learn what those of float32 do."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tabatlas.tabnet.architecture import PRESETS
from tabatlas.tabnet.encoder import Encoder
from tabatlas.tabnet.tiles import sum_tiles
from tabatlas.train.device import seed_generator
from three_tasks import COVARIATES, STAGES, draw_minibatch, draw_presence, make_task

pytestmark = pytest.mark.usefixtures("one_thread")
N_CELLS, N_GENES = 48, 200
# How far the loss may be, relatively: a number of bfloat16 is within 2⁻⁹ of what it stands for.
LOSS = 2**-8
# Cosine of the gradients, at least: mostly 0.99, but a mask's jumps where a gene enters it.
ALIKE = 0.8


def make_step(stage, architecture, covariates):
    """A task of which no weight is a trivial 0, and its inputs."""
    generator = seed_generator("cpu", 0)
    statistics = torch.full((N_GENES,), 0.1), torch.full((N_GENES,), 0.5)
    encoder = Encoder(architecture, *statistics, generator, covariates)
    task = make_task(stage, encoder, draw_presence(N_GENES, generator), generator)
    if stage == "pretrain":
        nn.init.normal_(task.model["decoder"].genes.weight, std=0.1, generator=generator)
    return task, task.draw(draw_minibatch(N_CELLS, N_GENES, generator), generator)


def take_step(task, inputs, in_half):
    """Loss, gradients and statistics; the task stays as it was."""
    start = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    task.model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=in_half):
        loss = task.loss(inputs, task.sizes(inputs))
    loss.backward()
    gradients = {name: one.grad for name, one in task.model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    task.model.load_state_dict(start)
    return loss, {name: one for name, one in gradients.items() if one is not None}, buffers


def compare_steps(stage, architecture, covariates):
    task, inputs = make_step(stage, architecture, covariates)
    loss, gradients, buffers = take_step(task, inputs, in_half=True)
    expected_loss, expected, expected_buffers = take_step(task, inputs, in_half=False)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected_loss, rtol=LOSS, atol=0)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name
    whole, wanted = (
        torch.cat([one.flatten() for one in g.values()]) for g in (gradients, expected)
    )
    assert torch.cosine_similarity(whole, wanted, dim=0) > ALIKE
    assert {name: one.dtype for name, one in buffers.items()} == {
        name: one.dtype for name, one in expected_buffers.items()
    }
    return buffers, expected_buffers


@pytest.mark.parametrize("mask_type", ["entmax", "sparsemax"])
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_of_any_shape_runs_in_bfloat16(stage, preset, n_steps, mask_type):
    shape = {"n_steps": n_steps, "mask_type": mask_type, "virtual_batch_size": 16}
    compare_steps(stage, replace(PRESETS[preset], **shape), COVARIATES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_without_covariates_runs_in_bfloat16(stage):
    compare_steps(stage, replace(PRESETS["small"], virtual_batch_size=16), ())


@pytest.mark.parametrize("stage", STAGES)
def test_statistics_of_the_input_are_those_of_float32_to_the_bit(stage):
    shape = replace(PRESETS["small"], scaling="batchnorm", virtual_batch_size=16)
    found, expected = compare_steps(stage, shape, COVARIATES)
    own = [name for name in expected if ".scale.running" in name]
    assert own
    for name in own:
        assert torch.equal(found[name], expected[name]), name


def test_a_sum_of_half_precision_is_not_of_half_precision():
    rows_nk = torch.full((1000, 1), 1.0, dtype=torch.bfloat16, requires_grad=True)
    total = sum_tiles(lambda tile, own: own.sum(), rows_nk, [], 1 << 22)  # a row is a tile
    assert total == 1000  # 256 + 1 is 256 in bfloat16
    (gradient,) = torch.autograd.grad(total, rows_nk)
    assert gradient.dtype == torch.bfloat16
    assert (gradient == 1).all()


def test_places_of_cells_are_not_rounded():
    """Their distance from the standard Gaussian is a part of the loss."""
    task, inputs = make_step("integrate", PRESETS["small"], ())
    with torch.autocast("cpu", torch.bfloat16):
        place = task.model["embedder"](inputs.x, inputs.hidden)
    assert {one.dtype for one in place} == {torch.float32}
