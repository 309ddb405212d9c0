"""Ranks over gloo, started as `torchrun` does: by what stands in their environment."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from tabatlas.errors import ConfigError, UsageError
from tabatlas.train.ranks import Ranks, join_ranks

CPU = torch.device("cpu")


def start(world: int, code: str, minutes: float = 5) -> list[subprocess.Popen]:
    """Commands that run `code` with `ranks` at hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f"""
import sys, time, torch
from tabatlas import cli
from tabatlas.train.ranks import join_ranks
def work():
    with join_ranks(torch.device("cpu"), {minutes}) as ranks:
{textwrap.indent(textwrap.dedent(code), " " * 8)}
cli.parse_command = lambda *_: work
sys.argv[1:] = ["pretrain"]
cli.main()
"""
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | places | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What each printed, once all ended well."""
    told = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), told
    return [printed for printed, _ in told]


SUMS = """
# Values whose sum depends on its order; three parts each, of a matrix that lies column by column.
def draw(number):
    generator = torch.Generator().manual_seed(number)
    values = torch.randn(3, 4, generator=generator) * 10.0 ** (number - 2)
    return [values.t(), torch.randn((), generator=generator)]

links = [draw(3 * ranks.rank + part) for part in range(3)]
if ranks.is_first:
    for link in links[1:]:
        torch._foreach_add_(links[0], link)
    del links[1:]
total = ranks.combine(links, ordered=True)
wanted = draw(0)
for number in range(1, 3 * ranks.world):
    torch._foreach_add_(wanted, draw(number))
assert all(map(torch.equal, total, wanted)), "other bits than one process has"
assert total[0].stride() == (1, 4), "another order in memory"

own = draw(3 * ranks.rank)
for part in (1, 2):
    torch._foreach_add_(own, draw(3 * ranks.rank + part))
for found, one in zip(ranks.combine([own], ordered=False), wanted, strict=True):
    torch.testing.assert_close(found, one)

assert ranks.add([ranks.rank, 1 << 58]) == [3, 3 << 58]
assert ranks.tell({"loss": 0.1, "rank": ranks.rank}) == {"loss": 0.1, "rank": 0}
print("agreed")
"""


def test_the_chain_gives_the_bits_that_one_process_gets():
    assert finish(start(3, SUMS)) == ["agreed\n"] * 3


def test_who_was_not_started_by_torchrun_is_alone():
    ranks = Ranks(CPU)
    assert ranks.is_first
    assert ranks.add([3, 4]) == [3, 4]
    assert ranks.tell("value") == "value"
    links = [[torch.ones(2)]]
    assert ranks.combine(links, ordered=True) is links[0]


@pytest.mark.parametrize("wrong", [{"WORLD_SIZE": "two"}, {"RANK": "first"}, {}])
def test_half_an_environment_of_torchrun_is_one_clear_message(monkeypatch, wrong):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in ({"RANK": "0", "WORLD_SIZE": "2"} | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun") as stop, join_ranks(CPU, 1):
        pass
    assert (*wrong.values(), "MASTER_ADDR")[0] in str(stop.value)


def test_ranks_with_unequal_work_are_refused():
    assert Ranks(CPU, 1, 2).share(4).n_own == 2
    with pytest.raises(ConfigError, match=r"micro_batches: 3: must be a multiple of .* 2"):
        Ranks(CPU, 1, 2).share(3)


OTHER_WEIGHTS = """
from types import SimpleNamespace
from tabatlas.train.engine import Progress, Trainer
task = SimpleNamespace(model=torch.nn.Linear(1, 1))
for parameter in task.model.parameters():
    torch.nn.init.constant_(parameter, float(ranks.rank == 1))
trainer = SimpleNamespace(ranks=ranks, task=task, progress=Progress(), folder="run")
Trainer.compare_ranks(trainer)
"""


def test_where_one_rank_holds_other_weights_none_goes_on_to_write_them():
    processes = start(3, OTHER_WEIGHTS)
    texts = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [4, 4, 4], texts
    assert all("1 of the 3 ranks" in text for text in texts)


def test_a_lost_rank_ends_the_others_resumably():
    waiting = """
    ranks.add([1])
    print("met", flush=True)
    if ranks.rank == 1:
        time.sleep(600)
    ranks.combine([[torch.ones(5)]], ordered=True)
    """
    processes = start(4, waiting)
    assert [one.stdout.readline() for one in processes] == ["met\n"] * 4
    time.sleep(0.5)
    os.kill(processes[1].pid, signal.SIGKILL)
    begin = time.monotonic()
    texts = [process.communicate(timeout=60)[1] for process in processes]
    assert time.monotonic() - begin < 30
    assert [process.returncode for process in processes] == [75, -signal.SIGKILL, 75, 75]
    assert all("has ended or does not answer" in texts[rank] for rank in (0, 2, 3))
    assert all(text.count("\n") == 1 for text in (texts[0], texts[2], texts[3]))
