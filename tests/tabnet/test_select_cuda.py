"""The Triton kernels, by what is at hand: a GPU, Triton's interpreter, and its compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tabatlas.tabnet import loops
from tabatlas.tabnet.entries import Entries, from_dense, match, unite
from tabatlas.tabnet.products import multiply, sample
from tabatlas.tabnet.select import center_gradient

triton = pytest.importorskip("triton", reason="triton has no wheel for this machine")

CASES = Path(__file__).with_name("select_cuda_cases.py")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
FIELD = {
    **dict.fromkeys(("weight", "attention", "scale", "shift"), "*fp32"),
    **{"prior": "fp32", "blocked": "*i32"},
    **dict.fromkeys(("n_cells", "n_genes", "n_chunks", "n_a"), "i32"),
}
# Triton makes a constant of each number that is 1.
ALONE = dict.fromkeys(("n_cells", "n_genes", "n_chunks", "n_a"), 1)
SOLVE = {"top": "*fp32", "threshold": "*fp32", "value": "*fp32", "indptr": "*i64", "n_steps": "i32"}
SIGNATURES = [
    ("keep_largest", {"largest": "*fp32", **FIELD}, {}),
    ("keep_largest", {"largest": "*fp32", **FIELD}, ALONE),
    ("keep_above", {"bits": "*i32", "count": "*i32", "floor": "*fp32", **FIELD}, {}),
    ("solve_row", {**SOLVE, "POWER": "i32"}, {"POWER": 1}),
    ("solve_row", {**SOLVE, "POWER": "i32"}, {"POWER": 2}),
    ("list_genes", {"gene": "*i32", "indptr": "*i64", "bits": "*i32", "n_groups": "i32"}, {}),
]


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=GPU)])
def test_kernels_find_what_the_dense_projections_select(interpreted: bool) -> None:
    # Triton reads the variable when it is imported; in this process it would stay so.
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpreted))}
    options = ["-p", "no:cacheprovider", "--confcutdir", CASES.parent]
    command = [sys.executable, "-m", "pytest", *options, CASES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "signature", "constants"), SIGNATURES)
def test_kernels_compile_for_an_h200(name, signature, constants, tmp_path, monkeypatch):
    """The interpreter forgives types and shapes that the compiler refuses."""
    from triton.backends.compiler import GPUTarget

    from tabatlas.tabnet import select_cuda

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    signature = {key: "constexpr" if key in constants else kind for key, kind in signature.items()}
    source = triton.compiler.ASTSource(getattr(select_cuda, name), signature, constants)
    warps = {"num_warps": select_cuda.WARPS} if "attention" in signature else {}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=warps)
    # Shared memory of one multiprocessor of an older GPU (sm_86).
    assert compiled.metadata.shared < 100_000
    assert "wgmma" not in compiled.asm["ptx"]
    assert "tf32" not in compiled.asm["ptx"]


def test_the_package_does_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import tabatlas.tabnet.classifier, "
        "tabatlas.tabnet.decoder, tabatlas.train.engine"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_products_and_matches_of_a_gpu_are_those_of_the_loops(generator, monkeypatch):
    """torch.sparse and searches, here on the CPU; they do without Triton."""
    x_ng = torch.randn(9, 30, generator=generator, dtype=torch.float64)
    x = from_dense(x_ng * (x_ng > 0.5))
    other = from_dense(x_ng * (x_ng > 1))
    weight_gh = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    expected = multiply_and_match(x, other, weight_gh)
    monkeypatch.setattr(loops, "can_run", lambda tensor: False)
    for one, two in zip(multiply_and_match(x, other, weight_gh), expected, strict=True):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


def multiply_and_match(x: Entries, other: Entries, weight_gh: torch.Tensor) -> list[torch.Tensor]:
    """All that `products` and `match` can do with two patterns, gradients included."""
    x = x._replace(value=x.value.clone().requires_grad_())
    weight_gh = weight_gh.clone().requires_grad_()
    product_nh, _ = multiply(x, weight_gh)
    product_nh.square().sum().backward()
    a_nh = product_nh.detach().requires_grad_()
    b_gh = weight_gh.detach().requires_grad_()
    sampled = sample(a_nh, b_gh, x.indptr, x.gene)
    sampled.square().sum().backward()
    found = [match(other, x.indptr, x.gene), *unite([x, other])]
    results = [product_nh, sampled, *(one.grad for one in (x.value, weight_gh, a_nh, b_gh))]
    return [*results, *found, center_gradient(x.indptr, x.value.detach(), sampled.detach())]
