"""What a profile asks for, read by Snakemake's own parser: as it searches, merges and overrides."""

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tabatlas.errors import UsageError

RULE = re.compile(r"^(?:rule|checkpoint) (\w+):$(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
LOCAL = re.compile(r"^localrules:\n((?:    .*\n)+)", re.MULTILINE)
# What a first attempt gets at least: `runtime=720`, `mem_mb=memory(2000, …)`.
NUMBER = re.compile(r"^        (mem_mb|runtime|gpu)=(?:\w+\()?(\d+)", re.MULTILINE)
TRAINS = re.compile(r"^        \*\*GPU,", re.MULTILINE)
A_NODE = "one of each node"  # how many GPUs a training has where nobody says
# Resources that are options of `sbatch` of the same name.
OTHERS = ("qos", "reservation", "constraint", "gres")
PLAIN = re.compile(r"[\w.:,@/-]*")


class Request(NamedTuple):
    """What the jobs of a rule ask Slurm for."""

    rule: str
    partition: str | None  # empty: the default one; None: calculated for each job
    account: str
    n_gpus: int  # of all nodes together
    gpu_model: str
    n_nodes: int
    minutes: int  # 0: not asked for, or calculated for each job
    memory: int  # MB; 0 likewise
    others: tuple[str, ...]  # options of `sbatch`

    @property
    def n_ranks(self) -> int:
        """The processes of a training: one for each GPU, and one of each node at least."""
        return max(self.n_gpus // self.n_nodes, 1) * self.n_nodes

    @property
    def of_node(self) -> int:
        """The GPUs that a node must have."""
        return -(-self.n_gpus // self.n_nodes)

    @property
    def wish(self) -> str:
        """The same in words."""
        return f"{self.of_node} × {self.gpu_model or 'GPU'}"

    @property
    def options(self) -> tuple[str, ...]:
        """These wishes as options of `sbatch`."""
        model = f"{self.gpu_model}:" if self.gpu_model else ""
        chosen = {
            "partition": self.partition,
            "account": self.account,
            "gpus-per-node": self.n_gpus and f"{model}{self.of_node}",
            "nodes": self.n_nodes,
            "time": self.minutes,
            "mem": self.memory,
        }
        return tuple(f"--{name}={value}" for name, value in chosen.items() if value) + self.others


@dataclass(frozen=True)
class Profile:
    """A profile together with the options that go before it."""

    name: str
    executor: str
    settings: Mapping[str, Any]  # of the executor, without its name: `status_command`, `qos` …
    default: Mapping[str, Any]
    of_rules: Mapping[str, Mapping[str, Any]]

    def list_requests(self, rules: Path) -> list[Request]:
        """What each rule in the files of a folder asks for, as Snakemake adds it up."""
        everywhere = {key: self.settings.get(key) for key in ("qos", "reservation")}
        return [
            read_request(rule, {**everywhere, **self.default, **own, **self.of_rules.get(rule, {})})
            for rule, own in read_rules(rules).items()
        ]


def read_profile(arguments: Sequence[str]) -> Profile:
    """The profile that a command line of Snakemake names.

    Raises `UsageError` with Snakemake's own words where that is none.
    """
    from snakemake.cli import parse_args

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            chosen = parse_args(list(arguments))[1]
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1:]
        raise UsageError(f"{' '.join(arguments)}: {' '.join(last)}") from None
    return Profile(
        name=" ".join(chosen.profile or ["none"]),
        executor=chosen.executor or "local",
        settings={
            name.removeprefix("slurm_"): value
            for name, value in vars(chosen).items()
            if name.startswith("slurm_") and isinstance(value, str | int)
        },
        default=read_resources(chosen.default_resources or {}),
        of_rules={rule: read_resources(own) for rule, own in (chosen.set_resources or {}).items()},
    )


def read_resources(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name; None for an expression, whose value each job has for itself."""
    return {name: read_value(resource.raw) for name, resource in given.items()}


def read_value(raw: Any) -> Any:
    """A number or a text as Snakemake takes it; None where it has to be calculated."""
    if not isinstance(raw, str):
        return None if callable(raw) else raw
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(raw)
    return raw if PLAIN.fullmatch(raw) else None


def read_rules(folder: Path) -> dict[str, dict[str, int | str]]:
    """The rules in a folder that become jobs, each with the numbers that it asks for."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.smk")))
    local = {name for block in LOCAL.findall(text) for name in re.findall(r"\w+", block)}
    return {
        name: ({"gpu": A_NODE} if TRAINS.search(body) else {})
        | {key: int(value) for key, value in NUMBER.findall(body)}
        for name, body in RULE.findall(text)
        if name not in local
    }


def read_request(rule: str, wishes: Mapping[str, Any]) -> Request:
    """A rule's request from its resources by name."""
    name, model, number = split_gres(str(wishes.get("gres") or ""))
    gres = (model, number) if name == "gpu" else ("", 0)
    n_nodes = read_number(wishes, "nodes") or 1
    n_gpus = n_nodes if wishes.get("gpu") == A_NODE else read_number(wishes, "gpu")
    others = [f"--{key}={wishes[key]}" for key in OTHERS if wishes.get(key)]
    return Request(
        rule=rule,
        partition=wishes.get("slurm_partition", ""),
        account=str(wishes.get("slurm_account") or ""),
        n_gpus=max(n_gpus, gres[1] * n_nodes),
        gpu_model=str(wishes.get("gpu_model") or gres[0]),
        n_nodes=n_nodes,
        minutes=read_number(wishes, "runtime"),
        memory=read_number(wishes, "mem_mb"),
        others=(*others, *shlex.split(str(wishes.get("slurm_extra") or ""))),
    )


def read_number(wishes: Mapping[str, Any], name: str) -> int:
    """A whole number; 0 where there is none, or none yet."""
    value = wishes.get(name)
    return value if isinstance(value, int) else 0


def split_gres(text: str) -> tuple[str, str, int]:
    """Name, type and number of a generic resource: `gpu`, `gpu:2`, `gpu:h100:2`."""
    name, *rest = text.split(":")
    number = int(rest.pop()) if rest and rest[-1].isdigit() else 1
    return name, rest[0] if rest else "", number
