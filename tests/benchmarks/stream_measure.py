"""CPU time and shuffle quality of a loader's epochs; what every process of stream.py shares.

It needs numpy alone: peers run it in environments of their own.
"""

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

N_UNIFORM = 200

# An epoch's minibatches as their labels: with these the loader has delivered its counts.
Epoch = Callable[[int], Iterator[np.ndarray]]


def measure_epochs(epoch: Epoch, n_epochs: int) -> dict[str, object]:
    """CPU and wall µs per cell of each epoch after one that warms up, and the shuffle's quality."""
    list(epoch(0))
    cpu_us, wall_us, entropy = [], [], []
    for number in range(1, n_epochs + 1):
        cpu, wall = cpu_seconds(), time.monotonic()
        label_n = list(epoch(number))
        cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
        n_cells = sum(map(len, label_n))
        cpu_us.append(1e6 * cpu / n_cells)
        wall_us.append(1e6 * wall / n_cells)
        entropy.append(compare_entropy(label_n))
    return {"cpu_us": cpu_us, "wall_us": wall_us, "entropy": float(np.mean(entropy))}


def measure_memory(epoch: Epoch, n_minibatches: int) -> dict[str, float]:
    """Anonymous memory in MB before some minibatches were read, and at most while they are."""
    before = peak = anonymous_mb()
    epochs = itertools.chain.from_iterable(map(epoch, itertools.count()))
    for _ in itertools.islice(epochs, n_minibatches):
        peak = max(peak, anonymous_mb())
    return {"before_mb": before, "peak_mb": peak}


def anonymous_mb() -> float:
    """Anonymous memory of this process: mapped pages of files do not count."""
    with open("/proc/self/status") as file:
        (line,) = (one for one in file if one.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def cpu_seconds() -> float:
    """User and system seconds of this process, its threads and its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare_entropy(label_n: list[np.ndarray]) -> float:
    """Mean label entropy of an epoch's minibatches as share of that of uniform ones of one size.

    A last minibatch that is much smaller takes no part.
    """
    size = max(map(len, label_n))
    whole = [one for one in label_n if len(one) > 0.9 * size]
    cells, rng = np.concatenate(label_n), np.random.default_rng(0)
    uniform = [rng.choice(cells, size, replace=False) for _ in range(N_UNIFORM)]
    return float(np.mean(list(map(entropy_of, whole))) / np.mean(list(map(entropy_of, uniform))))


def entropy_of(label_n: np.ndarray) -> float:
    """Entropy of labels (n,), in bits."""
    share = np.unique(label_n, return_counts=True)[1] / len(label_n)
    return float(-(share * np.log2(share)).sum())


def answer(found: dict[str, object]) -> None:
    """Tell the parent process what was found: one line of JSON on stdout."""
    sys.stdout.write(json.dumps(found) + "\n")
