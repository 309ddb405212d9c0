"""The partitions of a cluster as `sinfo` tells them."""

import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tabatlas.doctor.profile import split_gres
from tabatlas.slurm import ask

FORMAT = "%P|%a|%l|%m|%G|%T|%N|%o"
# Nodes that are powered down (`idle~`) are started when a job wants them.
UNUSABLE = re.compile(r"^down|drain|fail|maint|unk|inval|block")


@dataclass(frozen=True)
class Node:
    """A node of a partition."""

    name: str
    address: str
    memory: int  # MB
    state: str
    gpus: Counter[str]  # number by type; the empty type is that of a site which names none

    @property
    def is_usable(self) -> bool:
        """Whether it takes jobs now or when those on it have ended."""
        return not UNUSABLE.search(self.state) and not self.state.endswith("*")

    @property
    def is_here(self) -> bool:
        """Whether it is this machine under whatever name."""
        here = {socket.gethostname(), socket.gethostname().split(".")[0], "localhost"}
        return bool({self.name, self.address} & here) or self.address.startswith("127.")


@dataclass(frozen=True)
class Partition:
    """A partition, with its nodes."""

    name: str
    is_default: bool
    is_up: bool
    minutes: float  # longest that a job may take
    nodes: tuple[Node, ...]

    @property
    def usable(self) -> list[Node]:
        """The nodes that take jobs."""
        return [node for node in self.nodes if node.is_usable]

    @property
    def memory(self) -> int:
        """Memory of the largest node in MB."""
        return max(node.memory for node in self.nodes)

    @property
    def models(self) -> Counter[str]:
        """The most GPUs of each type that one node has."""
        most: Counter[str] = Counter()
        for node in self.nodes:
            most |= node.gpus
        return most

    @property
    def cards(self) -> str:
        """The same in words."""
        return ", ".join(f"{number} × {model or 'GPU'}" for model, number in self.models.items())

    def count_gpus(self, model: str) -> int:
        """The most GPUs of a type, or of any where that is empty, that one node has."""
        return max(node.gpus[model] if model else node.gpus.total() for node in self.nodes)


def read_partitions() -> dict[str, Partition] | None:
    """The partitions by name; None where Slurm does not answer."""
    told = ask("sinfo", "--noheader", "--all", "--Node", f"--format={FORMAT}")
    if told is None:
        return None
    rows = [line.strip().split("|") for line in told.splitlines() if line.count("|") == 7]
    names = dict.fromkeys(row[0] for row in rows)
    return {
        name.rstrip("*"): make_partition(name, [row for row in rows if row[0] == name])
        for name in names
    }


def find_partitions(known: Mapping[str, Partition] | None, wanted: str | None) -> list[Partition]:
    """Those that a name means: several may be given, and the empty one is the default.

    None where the name is calculated for each job, or Slurm tells none.
    """
    if wanted == "":
        return [one for one in (known or {}).values() if one.is_default]
    return [known[name] for name in (wanted or "").split(",") if name in (known or {})]


def make_partition(name: str, rows: list[list[str]]) -> Partition:
    """A partition from its lines, one of each node."""
    return Partition(
        name=name.rstrip("*"),
        is_default=name.endswith("*"),
        is_up=rows[0][1] == "up",
        minutes=read_minutes(rows[0][2]),
        nodes=tuple(
            Node(node, address, int(memory.rstrip("+")), state, read_gpus(gres))
            for _, _, _, memory, gres, state, node, address in rows
        ),
    )


def read_gpus(gres: str) -> Counter[str]:
    """Number of GPUs by type, of `gpu:h100:4(S:0-1),lustre:1`."""
    counted: Counter[str] = Counter()
    for one in re.sub(r"\(.*?\)", "", gres).split(","):
        name, model, number = split_gres(one)
        if name == "gpu":
            counted[model] += number
    return counted


def read_minutes(text: str) -> float:
    """Minutes of a time as Slurm writes it: `infinite`, `30:00`, `2:00:00`, `1-00:00:00`."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts):
        return float("inf")
    hours, minutes, seconds = (*(0,) * (3 - len(parts)), *map(int, parts))
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
