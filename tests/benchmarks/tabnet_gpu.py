"""Cells per second of a training step on a GPU, for tabnet.py."""

from collections.abc import Callable
from typing import Any

import tabnet_networks as networks
import torch
from tabnet_cells import Cells, calibrate
from tabnet_measure import count_bytes

from tabatlas.tabnet.architecture import Architecture

N_STEPS = 20


def measure_gpu(cells: Cells, sctab: Architecture, peer: Architecture) -> dict[str, Any]:
    """Steps of all the cells, k45: ours, the yardstick eager and compiled, and pytorch-tabnet."""
    if not torch.cuda.is_available():
        return {"gpu_cells_per_s": "not timed: no GPU"}
    pair = networks.build_classifiers(sctab, cells)
    calibrate(pair.theirs, cells, 45)
    pair.copy_weights()
    pair, cells = networks.Pair(*(one.cuda() for one in pair)), cells.to("cuda")
    runs = {
        "ours": (pair.ours, networks.run_sparse),
        "yardstick": (pair.theirs, networks.run_dense),
        "yardstick_compiled": (torch.compile(pair.theirs), networks.run_dense),
    }
    taken = {f"{name}_fp32": time_step(*one, cells) for name, one in runs.items()}
    for name, (network, run) in runs.items():
        taken[f"{name}_bf16"] = time_step(network, in_bfloat16(run), cells)
    taken["pytorch_tabnet_fp32"] = time_peer(peer, cells)
    moved = count_bytes(pair.ours, len(cells.label_n), len(cells.gene))
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_cells_per_s": {name: round(len(cells.label_n) / one) for name, one in taken.items()},
        "gpu_bytes_moved": moved,
        "gpu_bandwidth_share": round(moved / taken["ours_fp32"] / measure_copy(), 3),
    }


def in_bfloat16(run: networks.Run) -> networks.Run:
    """The same under autocast."""
    return torch.autocast("cuda", torch.bfloat16)(run)


def time_peer(architecture: Architecture, cells: Cells) -> float:
    """Seconds of a step of pytorch-tabnet."""
    theirs = networks.build_peers(architecture, cells).theirs.cuda()
    # Neither a parameter nor a buffer: it stays where it was made.
    theirs.encoder.group_attention_matrix = theirs.encoder.group_attention_matrix.cuda()
    return time_step(theirs, networks.run_peer, cells)


def time_step(network: torch.nn.Module, run: networks.Run, cells: Cells) -> float:
    """Seconds of a training step, the mean of many in a row."""
    return time_call(networks.make_step(network, run, cells))


def measure_copy() -> float:
    """Bytes per second of a copy on the device, read and written."""
    source = torch.ones(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 8 * len(source) / time_call(lambda: target.copy_(source))


def time_call(call: Callable[[], object]) -> float:
    """Seconds of a call by the device's clock; compiled and warm."""
    for _ in range(3):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(N_STEPS):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / N_STEPS
