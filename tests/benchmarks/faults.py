"""Does training lose anything when it is killed, and what does it cost that it does not?

    python tests/benchmarks/faults.py [--kills N] [--ranks N] [--seed N]

Kills real pretrainings (`tabatlas pretrain` on a small atlas) by SIGKILL at random times until
there were N kills, each started again to its end; lets runs of four ranks lose one, `--ranks` of
them; and measures checkpoint, start and step. Prints one line of JSON. `identical` of the `runs`
have, byte for byte, the last checkpoint (weights, optimizer, average, best, metrics, progress),
the metrics (losses and cells of every step) and the model of the undisturbed run.

200 kills take a quarter of an hour on two cores. Of the commands, one in twenty is an interpreter
of its own, the others are forked from one that has imported everything.
"""

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from faults_cost import make_demo, measure_checkpoints, measure_engine, measure_start
from fork_server import ForkServer
from kills import kill_runs, make_reference, summarize
from rank_faults import BOUND, HANG_MINUTES, LostRanks, lose_ranks
from small_run import SmallRun
from workflow import print_line

from small_atlas import make_atlas


def main() -> None:
    """Kill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs of a single process")
    parser.add_argument("--ranks", type=int, default=10, help="runs of four ranks that lose one")
    parser.add_argument("--seed", type=int, default=0, help="of the times of all faults")
    asked = parser.parse_args()
    with print_line() as found, tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "atlas").mkdir()
        atlas = make_atlas(place / "atlas")
        atlas.run_split(test_fraction=0.3, validation_fraction=0.2)
        atlas.run_pack(shard_cells=50)
        found |= kill_processes(atlas.pack, place / "kills", asked.kills, asked.seed)
        found["ranks"] = kill_ranks(atlas.pack, place / "ranks", asked.ranks, asked.seed)
        demo = make_demo(place / "demo")
        found |= measure_start(demo.pack, place / "start")
        found |= measure_engine(demo.pack, place / "engine")
        found |= measure_checkpoints(place / "checkpoints")


def kill_processes(pack: Path, folder: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Single processes that are killed."""
    with ForkServer() as server:
        undisturbed = make_reference(pack, folder / "undisturbed", server)
    return summarize(kill_runs(pack, folder, undisturbed, n_kills, seed))


def kill_ranks(pack: Path, folder: Path, n_runs: int, seed: int) -> dict[str, Any]:
    """Runs of ranks that lose some."""
    with ForkServer() as server:
        # It may have to compile: no step of that is as quick as the watchdog wants them below.
        undisturbed = make_reference(pack, folder / "undisturbed", server, epochs=6)
        stories = []
        for number in range(n_runs):
            run = SmallRun(pack, folder / str(number), epochs=6, hang_minutes=HANG_MINUTES)
            rng = np.random.default_rng([seed, number])
            stories.append(lose_ranks(run, server, undisturbed, rng))
    return summarize_ranks(stories)


def summarize_ranks(stories: Sequence[LostRanks]) -> dict[str, Any]:
    """The figures of all runs together."""
    seconds = [one for story in stories for one in story.bound_seconds]
    codes = [code for story in stories for code in story.codes]
    return {
        "runs": len(stories),
        "identical": sum(story.identical for story in stories),
        "faults": dict(Counter(fault for story in stories for fault in story.faults)),
        "worlds": [" ".join(map(str, story.worlds)) for story in stories],
        "others_ended_with_75": [codes.count(75), len(codes)],
        "others_ended_after_s": {
            "median": round(statistics.median(seconds), 2) if seconds else None,
            "most": round(max(seconds, default=0), 2),
            "bound": BOUND,
        },
        "checkpoints_lost": sum(story.lost for story in stories),
        "complaints": [story.complaint for story in stories if story.complaint],
    }


if __name__ == "__main__":
    main()
