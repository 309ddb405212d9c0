"""How tabnet.py measures: steps in turn, peak of allocations, and what the machine can do."""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

ROUNDS = 5
FLOP_PER_CELL = 13.6e6  # of a step of `sctab` in the sparse form, design figure


class Seconds(NamedTuple):
    """What every round of a step took."""

    cpu: list[float]
    wall: list[float]


def alternate(steps: dict[str, Callable[[], object]]) -> dict[str, Seconds]:
    """Run steps in turn, because other users of the machine change the figures.

    CPU seconds are those of all threads. The first call of each warms up and compiles.
    """
    for step in steps.values():
        step()
    taken = {name: Seconds([], []) for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            cpu, wall = time.process_time(), time.monotonic()
            step()
            taken[name].cpu.append(time.process_time() - cpu)
            taken[name].wall.append(time.monotonic() - wall)
    return taken


def compare(key: str, theirs: Callable[[], object], ours: Callable[[], object]) -> dict[str, Any]:
    """How many times as much CPU `theirs` takes, its spread over rounds, and the seconds."""
    taken = alternate({"theirs": theirs, "ours": ours})
    pairs = zip(taken["theirs"].cpu, taken["ours"].cpu, strict=True)
    ratios = sorted(round(one / other, 2) for one, other in pairs)
    cpu = {name: round(statistics.median(one.cpu), 4) for name, one in taken.items()}
    wall = {name: round(statistics.median(one.wall), 4) for name, one in taken.items()}
    return {
        key: round(cpu["theirs"] / cpu["ours"], 2),
        f"{key}_spread": [ratios[0], ratios[-1]],
        f"{key}_cpu_s": cpu,
        f"{key}_wall": round(wall["theirs"] / wall["ours"], 2),
        f"{key}_wall_s": wall,
    }


def measure_machine() -> dict[str, float]:
    """Single-precision GFLOP and copied GB (read + written), by CPU second and by second."""
    size, n_copied = 2048, 1 << 26
    left, right = torch.ones(size, size), torch.ones(size, size)
    source, target = torch.ones(n_copied), torch.ones(n_copied)
    work = {
        "sgemm": (2e-9 * size**3, lambda: left @ right),
        "copy": (8e-9 * n_copied, lambda: target.copy_(source)),
    }
    taken = alternate({name: step for name, (_, step) in work.items()})
    return {
        f"{name}_g_per_{clock}_s": round(amount / statistics.median(getattr(taken[name], clock)), 1)
        for name, (amount, _) in work.items()
        for clock in Seconds._fields
    }


def count_bytes(network: nn.Module, n_cells: int, n_entries: int) -> int:
    """Bytes that a step must move, were everything but these in cache.

    Weights are read forward and backward and their gradients written; AdamW reads weight, gradient
    and two moments, and writes three of them. Entries are read forward and backward. An activation
    of the GLU layers, five per unit of width, is written and read twice, and so is its gradient.
    """
    n_weights = sum(one.numel() for one in network.parameters())
    transformers = [network.encoder.splitter, *network.encoder.feature]
    n_units = sum(len(norm.weight) // 2 for one in transformers for norm in one.norms)
    return 4 * n_weights * (2 + 1 + 7) + 2 * 8 * n_entries + 6 * 4 * 5 * n_units * n_cells


def measure_peak(step: Callable[[], object]) -> int:
    """Greatest number of bytes that the step has allocated at one time, gradients included.

    The sum of two peaks: torch's, from its profiler's record, and that of Python and numpy, from
    tracemalloc. What compiled loops allocate for themselves is in neither: ours take tensors.
    """
    step()
    tracemalloc.start()
    step()
    host_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    held = peak = 0
    events = record.profiler.kineto_results.events()
    for one in sorted(events, key=lambda one: one.start_ns()):
        if one.name() == "[memory]":
            held += one.nbytes()
            peak = max(peak, held)
    return peak + host_peak
