"""SIGKILL at random times, and what comes of it."""

import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fork_server import ForkServer
from marks import PHASES
from small_run import POLL, Attempt, SmallRun

# Half of the kills come at any time within a share of a run's length, half aim at a phase, that
# short ones are hit too. Interpreters of their own are slow to start: one attempt in so many.
SHARE = 0.4
AIMED = ("start", "restore", "step", "validation", "checkpoint", "renamed", "metrics", "outputs")
EVERY = 20
MOST_KILLS = 8  # of one run


@dataclass(frozen=True)
class Kill:
    """Where an attempt was when it was killed."""

    phase: str
    step: int
    durable: int  # step of the last checkpoint that was written to its end
    whole: bool  # had an interpreter of its own


@dataclass
class Story:
    """A run: its kills, and how it ended."""

    kills: list[Kill] = field(default_factory=list)
    restored: list[int] = field(default_factory=list)  # step each later attempt began with
    lost: int = 0  # attempts that began before a checkpoint that was written to its end
    identical: bool = False
    complaint: str = ""


@dataclass(frozen=True)
class Reference:
    """The undisturbed run."""

    ending: dict[str, str]
    seconds: float  # from start to end, by fork
    phases: dict[str, float]  # mean seconds
    n_steps: int


class Budget:
    """Kills that are still wanted, shared by threads."""

    def __init__(self, n_kills: int) -> None:
        self.left, self.lock = n_kills, threading.Lock()

    def take(self) -> bool:
        """Take one, if there is one."""
        with self.lock:
            found = self.left > 0
            self.left -= found
            return found

    def give_back(self) -> None:
        """The attempt ended before its kill."""
        with self.lock:
            self.left += 1


def make_reference(pack: Path, folder: Path, server: ForkServer, **knobs: Any) -> Reference:
    """Run undisturbed, by fork and with marks."""
    run = SmallRun(pack, folder, **knobs)
    attempt = run.start(server)
    begin = time.monotonic()  # not before: the server may still be importing
    assert attempt.end() == 0, attempt.said()
    phases = {name: attempt.marks.mean_seconds(name) for name in PHASES}
    seconds = time.monotonic() - begin
    return Reference(run.ending(), seconds, phases, int(attempt.marks["step"]))


def kill_runs(
    pack: Path, folder: Path, reference: Reference, n_kills: int, seed: int, n_threads: int = 2
) -> list[Story]:
    """Runs that are killed and started again to their end, until there were so many kills."""
    budget = Budget(n_kills)

    def work(thread: int) -> list[Story]:
        stories = []
        with ForkServer() as server:
            while budget.left > 0:
                name = f"{thread}-{len(stories)}"
                rng = np.random.default_rng([seed, thread, len(stories)])
                run = SmallRun(pack, folder / name)
                stories.append(tell_story(run, server, reference, budget, rng))
        return stories

    with ThreadPoolExecutor(n_threads) as pool:
        return [story for part in pool.map(work, range(n_threads)) for story in part]


def tell_story(
    run: SmallRun,
    server: ForkServer,
    reference: Reference,
    budget: Budget,
    rng: np.random.Generator,
) -> Story:
    """One run to its end."""
    story = Story()
    while True:
        last = len(story.kills) >= MOST_KILLS or not budget.take()
        whole = bool(rng.integers(EVERY) == 0)
        attempt = run.start(None if whole else server)
        if not last:
            await_moment(attempt, reference, rng)
            attempt.signal(signal.SIGKILL)
        code = attempt.end()
        check_restored(story, attempt)
        if code != -signal.SIGKILL:
            break
        marks = attempt.marks
        story.kills.append(Kill(marks.phase, int(marks["step"]), int(marks["durable"]), whole))
    if not last:
        budget.give_back()
    if code:
        story.complaint = f"ended with {code}: {attempt.said()[-500:]}"
    else:
        judge_ending(story, run, reference)
    return story


def check_restored(story: Story, attempt: Attempt) -> None:
    """Note what an attempt began with: no older than what had been written to its end."""
    if not story.kills or not attempt.marks.entered("step"):
        return
    story.restored.append(int(attempt.marks["restored"]))
    story.lost += story.restored[-1] < max(one.durable for one in story.kills)


def judge_ending(story: Story, run: SmallRun, reference: Reference) -> None:
    """Compare the files of a finished run with the undisturbed one's."""
    found, wanted = run.ending(), reference.ending
    story.identical = found == wanted
    if not story.identical:
        names = sorted(found.keys() | wanted.keys())
        different = [name for name in names if found.get(name) != wanted.get(name)]
        story.complaint = f"{run.folder.name}: different: {', '.join(different)}"
    # Of one that was killed while it asked for the run stays what it asked with, for a lease.
    elif left := [name for name in run.unexpected() if not name.startswith(".owner-")]:
        story.complaint = f"{run.folder.name}: left over: {', '.join(left)}"


def await_moment(
    attempt: Attempt,
    reference: Reference,
    rng: np.random.Generator,
    aimed: Sequence[str] = AIMED,
) -> None:
    """Wait until it is to be killed, or has ended."""
    if rng.random() < 0.5:
        delay = rng.uniform(0, SHARE * reference.seconds)
    else:
        phase = str(rng.choice(aimed))
        nth = int(rng.integers(1, 12)) if phase not in ("start", "restore", "outputs") else 1
        attempt.await_phase(phase, nth)
        delay = rng.uniform(0, 1.2 * max(0.003, reference.phases[phase]))
    until = time.monotonic() + delay
    while time.monotonic() < until and attempt.is_running():
        time.sleep(min(POLL * 10, max(0, until - time.monotonic())))


def summarize(stories: list[Story]) -> dict[str, Any]:
    """The figures of all runs together."""
    kills = [kill for story in stories for kill in story.kills]
    progress = list(find_progress(stories))
    return {
        "kills": len(kills),
        "runs": len(stories),
        "identical": sum(story.identical for story in stories),
        "checkpoints_lost": sum(story.lost for story in stories),
        "killed_in": dict(Counter(kill.phase for kill in kills)),
        "kills_of_whole_interpreters": sum(kill.whole for kill in kills),
        "steps_between_kills": {
            "median": statistics.median(progress),
            "most": max(progress),
            "none": progress.count(0),
        },
        "complaints": [story.complaint for story in stories if story.complaint],
    }


def find_progress(stories: list[Story]) -> Iterator[int]:
    """By how many steps each killed attempt was further than any before it."""
    for story in stories:
        reached = 0
        for kill in story.kills:
            yield max(0, kill.step - reached)
            reached = max(reached, kill.step)
