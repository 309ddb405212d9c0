"""One of several ranks is killed or stopped, and what comes of it."""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fork_server import ForkServer
from kills import Reference, await_moment, judge_ending
from small_run import Attempt, SmallRun

HANG_MINUTES = 0.2
# The watchdog's minutes, its tick, and as much again for a busy machine.
BOUND = 2 * 60 * HANG_MINUTES + 2
LEASE_SECONDS = "2"
MOST_FAULTS = 3  # of one run
WORLDS = (4, 2, 1)
BEGUN = 0.8  # of the faults come after the first step: to start takes ranks as long as to train
OTHERS = ("start", "step", "between", "validation")  # phases of ranks that write nothing


@dataclass
class LostRanks:
    """A run of ranks with its faults, and how it ended."""

    faults: list[str] = field(default_factory=list)  # signal, rank and phase
    worlds: list[int] = field(default_factory=list)
    bound_seconds: list[float] = field(default_factory=list)  # until the other ranks had ended
    codes: list[int] = field(default_factory=list)  # of other ranks that had steps to do
    lost: int = 0
    identical: bool = False
    complaint: str = ""


def start_ranks(
    run: SmallRun, server: ForkServer | None, world: int, **environment: str
) -> list[Attempt]:
    """As many attempts as ranks, with the environment that `torchrun` gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(world)]
    named = [{name: str(value) for name, value in one.items()} for one in ranks]
    return [run.start(server, **environment, **one) for one in named]


def end_all(attempts: list[Attempt], seconds: float) -> list[int]:
    """Exit codes of all, which must end within so many seconds altogether."""
    until = time.monotonic() + seconds
    return [one.end(max(0.01, until - time.monotonic())) for one in attempts]


def lose_ranks(
    run: SmallRun, server: ForkServer, reference: Reference, rng: np.random.Generator
) -> LostRanks:
    """A run that loses a rank, is started with another number of them, and so on to its end."""
    story = LostRanks()
    durable = 0
    while True:
        world = int(rng.choice(WORLDS[:2] if len(story.faults) < MOST_FAULTS else WORLDS))
        world = world if story.worlds else WORLDS[0]
        story.worlds.append(world)
        attempts = start_ranks(run, server, world, LEASE_SECONDS=LEASE_SECONDS)
        if len(story.faults) == MOST_FAULTS:
            break
        victim = attempts[rng.integers(world)]
        if rng.random() < BEGUN:
            victim.await_phase("between")
        await_moment(victim, reference, rng, *(() if victim is attempts[0] else (OTHERS,)))
        if not victim.is_running():
            break
        number = signal.SIGKILL if rng.random() < 0.5 else signal.SIGSTOP
        disturb(story, attempts, victim, number, reference.n_steps)
        durable = max(durable, int(attempts[0].marks["durable"]))
    codes = end_all(attempts, 300)
    restored = int(attempts[0].marks["restored"])
    story.lost = int(attempts[0].marks.entered("step") > 0 and restored < durable)
    if any(codes):
        story.complaint = f"ended with {codes}: {attempts[0].said()[-500:]}"
    else:
        judge_ending(story, run, reference)
    return story


def disturb(
    story: LostRanks, attempts: list[Attempt], victim: Attempt, number: int, n_steps: int
) -> None:
    """Kill or stop a rank, and see how the others end."""
    others = [one for one in attempts if one is not victim]
    victim.signal(number)
    begin = time.monotonic()
    place = f"{signal.Signals(number).name} rank {attempts.index(victim)} {victim.marks.phase}"
    story.faults.append(place)
    try:
        codes = end_all(others, 2 * BOUND)
        unfinished = [one.marks["step"] < n_steps for one in others]
        story.codes += [code for code, asked in zip(codes, unfinished, strict=True) if asked]
        story.bound_seconds.append(time.monotonic() - begin)
    except subprocess.TimeoutExpired:
        story.complaint += f"{place}: the others did not end; "
    for one in attempts:
        if one.is_running():
            one.signal(signal.SIGKILL)
            one.end()


def snapshot(folder: os.PathLike) -> dict[str, tuple[Any, ...]]:
    """What the files of a folder are: name, size, time, inode, content."""
    found = {}
    for entry in os.scandir(folder):
        status = entry.stat()
        with open(entry, "rb") as file:
            found[entry.name] = (status.st_ino, status.st_mtime_ns, file.read())
    return found
