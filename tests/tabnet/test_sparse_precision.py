"""The sparse form in float32 is no farther from float64 than the dense form in float32."""

import pytest
import torch
from both_forms import FORMS, draw_cells, draw_network, narrow, run

N_DRAWS = 4
FORWARD = {"loss", "logits", "decisions", "entropy", "masks"}
# Rounding differs from draw to draw, by the order of every sum. All gradients together, over four
# draws, the forms' errors differ by up to 30 %; in a single tensor up to threefold, either way.
TOGETHER, ALONE = 2, 4
# A number, or a tensor, may be met by luck: nothing is expected to be nearer than this.
LUCK = 4 * torch.finfo(torch.float32).eps


def measure_errors(**knobs):
    """Relative errors of both forms, and the mean number of selected genes."""
    squares, n_selected = {form: {} for form in FORMS}, 0.0
    for seed in range(N_DRAWS):
        generator = torch.Generator().manual_seed(seed)
        cells = draw_cells(64, 2000, generator, density=0.1)
        network = draw_network(cells, generator, n_d=16, n_a=16, **knobs).float()
        cells = narrow(cells)
        wide = cells._replace(x_ng=cells.x_ng.double())
        expected = run(network.double(), "dense", wide)
        n_selected += (expected["masks"] > 0).sum(-1).double().mean().item() / N_DRAWS
        for form in FORMS:
            for name, tensor in run(network.float(), form, cells).items():
                square = (tensor.double() - expected[name]).square().sum()
                size = expected[name].double().square().sum().clamp_min(1e-10)
                squares[form][name] = squares[form].get(name, 0) + (square / size).item()
    roots = [{n: (s / N_DRAWS) ** 0.5 for n, s in squares[form].items()} for form in FORMS]
    return *roots, n_selected


def add_up(errors, names):
    return sum(errors[name] ** 2 for name in names) ** 0.5


@pytest.mark.parametrize(
    ("mask_type", "gain", "scaling", "n_steps"),
    [
        ("entmax", 1.0, "deviation", 1),
        ("entmax", 1.0, "batchnorm", 3),
        ("sparsemax", 0.1, "deviation", 3),
        ("sparsemax", 0.1, "batchnorm", 1),
    ],
)
def test_rounding_is_no_worse(mask_type, gain, scaling, n_steps):
    dense, sparse, n_selected = measure_errors(
        mask_type=mask_type, gain=gain, scaling=scaling, n_steps=n_steps, virtual_batch_size=32
    )
    assert 10 < n_selected < 100
    # The gradient through sparsemax jumps where a gene enters, and rounding lets some enter: it is
    # as far from float64 as these are many, in either form.
    names = FORWARD if mask_type == "sparsemax" else dense.keys()
    worse = {n: (sparse[n], dense[n]) for n in names if sparse[n] > ALONE * dense[n] + LUCK}
    assert not worse, worse
    assert add_up(sparse, names) < TOGETHER * add_up(dense, names)
