"""Choose the device and make a run repeatable on it."""

import os

import numpy as np
import torch

from tabatlas.errors import UsageError


def choose_device(wanted: str, threads: int) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`, with torch's threads set.

    Each rank of a node takes the GPU of its number there.
    """
    # Sums change in their last bits with the number of threads.
    torch.set_num_threads(threads)
    device = find_device(wanted)
    if device.type == "cuda":
        number, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= n_gpus:
            raise UsageError(
                f"rank {number} of this node has no GPU: torch sees {n_gpus}. Start as many "
                "processes (`--nproc-per-node`) as there are GPUs."
            )
        torch.cuda.set_device(number)
    return device


def find_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises `UsageError` for another word, and for a GPU that is not there: no silent CPU run.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: {wanted}: choose `auto`, `cpu` or `cuda`.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device: cuda: torch sees no GPU here. Use `device: auto`, or run on a GPU node with "
            "a CUDA build of torch."
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def seed_generator(device: torch.device | str, seed: int, *place: int) -> torch.Generator:
    """A generator whose draws depend on seed and place alone, such as (epoch, step)."""
    # As entropy (seed,) and (seed, 0, 0) would be the same: numpy fills up with zeros.
    sequence = np.random.SeedSequence(seed, spawn_key=place)
    state = sequence.generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
