"""Random generators keyed by name: what is drawn under one name never depends on another."""

import hashlib

import numpy as np


def named_generator(seed: int, *name: str) -> np.random.Generator:
    """The generator of `name`, spawned from `seed`; independent of all other names."""
    words = np.frombuffer(hashlib.sha256("/".join(name).encode()).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=words.tolist()))


def apportion(n: int, weights: np.ndarray) -> np.ndarray:
    """Divide `n` into integer parts as near to `weights` (k,) as whole numbers allow."""
    exact = n * weights / weights.sum()
    parts = np.floor(exact).astype(int)
    largest_remainders = np.argsort(parts - exact, kind="stable")[: n - parts.sum()]
    parts[largest_remainders] += 1
    return parts
