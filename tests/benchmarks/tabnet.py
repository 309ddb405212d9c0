"""TabNet's steps beside the dense yardstick and pytorch-tabnet, as one line of JSON.

    python tests/benchmarks/tabnet.py [--quick]

Some ten minutes on two cores and 8 GB; `--quick` takes 2,000 genes instead of 19,331. Keys without
a suffix are ratios of CPU seconds of all threads, theirs / ours, of the medians over rounds in
which both take turns. `_spread` is the least and the greatest ratio of a round, `_wall` the ratio
by wall time, `_cpu_s` and `_wall_s` are seconds. A step is: CSR cells into the form that the
network takes, forward, loss, backward, fused AdamW; `infer_sctab` gives logits. Both have the same
weights, and what they give is compared before anything is timed.

Cells are synthetic: a tenth of the genes of a cell expressed, popularity 1 / rank. Networks are
random; the gain of the masks' normalization is set so that a cell's step selects as many genes on
average as the key says (`_support`: mean, greatest; `paper3` 45 as well). `step_flat` is the same
with an untrained network's flat logits, of which every gene is selected; it has no bar.
pytorch-tabnet keeps the gain of 1 that it is made with.

`pretrain_step`: the yardstick hides genes by a coin for every gene of every cell, ours by sets that
cells share. `floor_share` is the share of our `k45` step that 13.6 MFLOP per cell would take at the
speed of sgemm, `floor_share_wall` by wall time, `bytes_share` what moving its bytes once would take
at the speed of a copy. `peak_memory_share`: greatest allocation within a step of 2,048 cells.
"""

import argparse
import dataclasses
import os
import sys
from typing import Any

import tabnet_networks as networks
import torch
from tabnet_cells import Cells, calibrate, draw_cells, measure_support, set_gain
from tabnet_gpu import measure_gpu
from tabnet_measure import (
    FLOP_PER_CELL,
    compare,
    count_bytes,
    measure_machine,
    measure_peak,
)
from tabnet_yardstick import hide_genes
from workflow import print_line

from tabatlas.tabnet.architecture import PRESETS, Architecture
from tabatlas.tabnet.layers import FLAT_GAIN
from tabatlas.tabnet.sparse import encode

N_CELLS, N_GENES = 1024, 19_331
SCTAB = PRESETS["sctab"]
PAPER3 = dataclasses.replace(PRESETS["paper"], n_steps=3, n_d=128, n_a=128)
# pytorch-tabnet's defaults, but for the width and the number of steps.
PEER = Architecture(
    n_d=64,
    n_a=64,
    n_steps=3,
    gamma=1.3,
    virtual_batch_size=128,
    momentum=0.02,
    mask_type="sparsemax",
    scaling="batchnorm",
)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,000 genes")
    given = parser.parse_args()
    wait_without_spinning()
    torch.set_num_threads(2)
    with print_line() as found:
        n_genes = 2_000 if given.quick else N_GENES
        cells = draw_cells(2 * N_CELLS, n_genes)
        found |= {"benchmark": "tabnet", "genes": n_genes, "cells": N_CELLS}
        found |= {"density": round(len(cells.gene) / (len(cells.label_n) * n_genes), 3)}
        found |= measure_machine()
        for measure in (measure_sctab, measure_paper, measure_pretraining, measure_peers):
            found |= measure(cells)
        if not given.quick:  # 13.6 MFLOP are those of all genes
            found |= share_floors(found)
        found |= measure_gpu(cells, SCTAB, PEER)


def wait_without_spinning() -> None:
    """Start again with threads that sleep while they wait.

    By default they spin, and on a machine that others use as well most CPU seconds are spinning.
    """
    if os.environ.get("OMP_WAIT_POLICY") != "passive":
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def measure_sctab(cells: Cells) -> dict[str, Any]:
    """Steps at three widths of the masks, inference, and the peak of memory."""
    few, found = cells.first(N_CELLS), {}
    pair = networks.build_classifiers(SCTAB, cells)
    for key, k in {"step_sctab_k270": 270, "step_sctab_k45": 45}.items():
        found |= measure_step(key, pair, few, k)
    bytes_moved = count_bytes(pair.ours, N_CELLS, len(few.gene))
    found |= {"bytes_moved": bytes_moved} | measure_inference(pair, few)
    found |= measure_memory(pair.train(), cells)
    set_gain(pair.theirs, FLAT_GAIN)
    return found | measure_step("step_flat", pair, few)


def measure_paper(cells: Cells) -> dict[str, Any]:
    """The paper's network in three steps."""
    pair = networks.build_classifiers(PAPER3, cells)
    return measure_step("step_paper3", pair, cells.first(N_CELLS), 45)


def measure_step(
    key: str, pair: networks.Pair, cells: Cells, k: float | None = None
) -> dict[str, Any]:
    """A training step of both, with masks that select k genes, or as many as they do."""
    if k is not None:
        calibrate(pair.theirs, cells, k)
    pair.copy_weights()
    support = measure_support(pair.theirs, cells.dense())
    found = compare_steps(key, pair, networks.run_dense, cells, tolerance=1e-3)
    return found | {f"{key}_support": support}


def compare_steps(
    key: str, pair: networks.Pair, run: networks.Run, cells: Cells, tolerance: float
) -> dict[str, Any]:
    """Training steps in turn, after both gave the same logits and entropy."""
    for theirs, ours in zip(
        run(pair.theirs, cells), networks.run_sparse(pair.ours, cells), strict=True
    ):
        networks.check_same(theirs, ours, tolerance)
    theirs = networks.make_step(pair.theirs, run, cells)
    return compare(key, theirs, networks.make_step(pair.ours, networks.run_sparse, cells))


def measure_inference(pair: networks.Pair, cells: Cells) -> dict[str, Any]:
    """Logits alone."""
    pair.train(False).copy_weights()
    entries = networks.list_entries(cells)
    theirs = torch.inference_mode()(lambda: pair.theirs(cells.dense(), with_entropy=False)[0])
    ours = torch.inference_mode()(lambda: pair.ours.classify(entries)[0])
    networks.check_same(theirs(), ours(), tolerance=1e-3)
    found = compare("infer_sctab", theirs, ours)
    return found | {"infer_sctab_support": measure_support(pair.theirs, cells.dense())}


def measure_memory(pair: networks.Pair, cells: Cells) -> dict[str, Any]:
    """Peak of a step's allocations, ours / theirs."""
    steps = {
        "theirs": networks.make_step(pair.theirs, networks.run_dense, cells),
        "ours": networks.make_step(pair.ours, networks.run_sparse, cells),
    }
    peak = {name: round(measure_peak(step) / 1e6) for name, step in steps.items()}
    share = round(peak["ours"] / peak["theirs"], 3)
    return {"peak_memory_share": share, "peak_memory_mb": peak}


def measure_peers(cells: Cells) -> dict[str, Any]:
    """pytorch-tabnet at 2,000 genes and at all of them."""
    found: dict[str, Any] = {}
    sizes = {"ptn_2000": (draw_cells(N_CELLS, 2_000), N_CELLS), "ptn_19331": (cells, 256)}
    for key, (drawn, n_cells) in sizes.items():
        found |= measure_peer(key, drawn.first(n_cells))
    return found


def measure_peer(key: str, cells: Cells) -> dict[str, Any]:
    """A training step of pytorch-tabnet's network and of ours with its weights."""
    pair = networks.build_peers(PEER, cells)
    # With random weights some logit lies next to its threshold in float32.
    found = compare_steps(key, pair, networks.run_peer, cells, tolerance=1e-2)
    with torch.no_grad():
        masks = encode(pair.ours.encoder, networks.list_entries(cells)).masks
    support = torch.cat([mask.indptr.diff() for mask in masks])
    return found | {f"{key}_support": (float(support.float().mean()), int(support.max()))}


def measure_pretraining(cells: Cells) -> dict[str, Any]:
    """A masked step, each with its own way of drawing what is hidden.

    The floor adds the reconstruction of the hidden half of the genes, forward and backward.
    """
    few, generator = cells.first(N_CELLS), torch.Generator().manual_seed(0)
    pair = networks.build_pretrainers(SCTAB, cells)
    calibrate(pair.theirs, few, 45)
    pair.copy_weights()
    sets, n_genes = networks.draw_sets(few, generator), len(cells.mean_g)
    networks.check_same(
        networks.dense_masked_loss(pair.theirs, few, sets.to_dense()),
        networks.sparse_masked_loss(pair.ours, few, sets),
        tolerance=1e-4,
    )

    def draw_dense() -> torch.Tensor:
        hidden_ng = hide_genes(N_CELLS, n_genes, generator)
        return networks.dense_masked_loss(pair.theirs, few, hidden_ng)

    def draw_sparse() -> torch.Tensor:
        return networks.sparse_masked_loss(pair.ours, few, networks.draw_sets(few, generator))

    found = compare(
        "pretrain_step",
        networks.optimize(pair.theirs, draw_dense),
        networks.optimize(pair.ours, draw_sparse),
    )
    support = measure_support(pair.theirs, few.dense(), sets.to_dense())
    flop = FLOP_PER_CELL + 3 * 2 * SCTAB.n_d * n_genes / 2
    return found | {"pretrain_step_support": support, "pretrain_step_floor_flop": flop}


def share_floors(found: dict[str, Any]) -> dict[str, Any]:
    """What arithmetic and memory alone would take of our step, as shares of it."""
    work = {
        "floor_share": ("sgemm", 1e-9 * FLOP_PER_CELL * N_CELLS, "step_sctab_k45"),
        "bytes_share": ("copy", 1e-9 * found["bytes_moved"], "step_sctab_k45"),
        "pretrain_step_floor_share": (
            "sgemm",
            1e-9 * found["pretrain_step_floor_flop"] * N_CELLS,
            "pretrain_step",
        ),
    }
    shares = {}
    for key, (speed, amount, step) in work.items():
        for clock, suffix in {"cpu": "", "wall": "_wall"}.items():
            seconds = amount / found[f"{speed}_g_per_{clock}_s"]
            shares[key + suffix] = round(seconds / found[f"{step}_{clock}_s"]["ours"], 3)
    return shares


if __name__ == "__main__":
    main()
