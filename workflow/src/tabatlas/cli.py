"""The command `tabatlas`: a stage's `run` and its parameters are its command line.

A stage is imported only when it is asked for, so that `--help` and dry runs stay quick.
"""

import argparse
import contextlib
import importlib
import inspect
import logging
import os
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType, NoneType
from typing import Any

from tabatlas.errors import InputError, Interrupted, TabatlasError
from tabatlas.train.signals import STOPPING, await_end_of_job, choose_signals, name_signal

STAGES = {
    "simulate": "simulate one dataset of the demo atlas",
    "fetch": "verify a source file, find its raw counts, map its genes and cells",
    "qc": "measure and judge every cell",
    "normalize": "bring the counts onto the atlas's genes",
    "ingest": "write the SOMA experiment: register, append, seal",
    "split": "divide donors into train, validation and test",
    "pack": "write the shuffled training cache",
    "pretrain": "train the encoder to predict hidden genes",
    "finetune": "train and test the cell type classifier",
    "integrate": "train an embedding that forgets libraries and assays, and compare it with others",
    "perturb": "predict perturbation effects and score them; read screens outside the atlas",
    "explain": "say which genes the classifier uses: replicate, attribute",
    "bundle": "put the models into one versioned folder",
    "report": "write the report",
}
# What is no stage, and the module of each.
OTHERS = {
    "annotate": ("tabatlas.annotate.stage", "label and embed the cells of a query with a bundle"),
    "verify": ("tabatlas.bundle.verify", "check every hash of a bundle and say what built it"),
    "models": ("tabatlas.bundle.models", "list the bundles of a folder, or describe one"),
    "replay": ("tabatlas.train.replay", "write the curves of a training for TensorBoard"),
    "doctor": ("tabatlas.doctor.command", "check machine, disks and cluster before a run"),
    "config": ("tabatlas.config", "print every knob as YAML, or the JSON schema of the config"),
}


class Stopped(KeyboardInterrupt):
    """A signal that ends the command, but for a training, which notes it while it takes its steps.

    It is no `Exception`, which others may catch.
    """

    def __init__(self, number: int) -> None:
        self.number = number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's error ends in one message and its exit code."""
    own_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    top = build_parser()
    stage = top.parse_args(arguments[:1]).stage
    title = start_log(stage)
    # Threads of OpenMP spin while they wait. Where other processes share the cores, two of them
    # then take ten times the time of one. It must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    resumable = any(word.split("=")[0] == "--checkpoints" for word in arguments)
    ending = end_process() if own_process else contextlib.nullcontext()
    with listening(), ending, stopping(title, resumable), failing(title):
        if own_process and resumable:
            await_end_of_job()
        try:
            parse_command(stage, arguments[1:])()
        finally:
            sys.stdout.flush()  # a full disk shows here
        ignore_signals()  # all is said and written


@contextlib.contextmanager
def stopping(title: str, resumable: bool) -> Iterator[None]:
    """A context in which a signal ends in one message and its exit code."""
    try:
        yield
    except Stopped as stopped:
        message = f"stopped by {name_signal(stopped.number)}"
        if resumable and stopped.number == signal.SIGALRM:
            message += ", before the training's steps or after them; these are kept, the rest "
            message += "begins anew. If that comes again, give it more `runtime`"
        if resumable:
            fail(title, f"{message}; run it again.", Interrupted.exit_code)
        fail(title, message, 128 + stopped.number)


@contextlib.contextmanager
def failing(title: str) -> Iterator[None]:
    """A context in which what a user can cause ends in one message and its exit code."""
    try:
        yield
    except TabatlasError as error:
        fail(title, str(error), error.exit_code)
    except BrokenPipeError:  # `tabatlas config | head` has read enough
        sys.stdout = None  # what waits in it would fail again at exit
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        sys.stdout = None
        # No space, no permission, a path that is a folder: the system's own words name it.
        fail(
            title, f"{error}. Check the path, its permissions and the space.", InputError.exit_code
        )
    except MemoryError as error:
        # As where the kernel ends it for that: the workflow gives the next attempt more.
        code = 128 + signal.SIGKILL
        fail(title, f"out of memory ({error}). Give the job more.", code)


def start_log(stage: str) -> str:
    """Let messages go to stderr; returns the command's name in them.

    Of the processes that `torchrun` started all say who they are, and the first one alone tells
    how it goes.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    rank = "0" if alone else os.environ.get("RANK", "0")
    title = stage if alone else f"{stage} rank {rank}"
    logging.basicConfig(
        stream=sys.stderr, format=f"%(asctime)s {title} %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger(__package__).setLevel(logging.INFO if rank == "0" else logging.WARNING)
    return title


@contextlib.contextmanager
def end_process() -> Iterator[None]:
    """A context that ends the process with the exit code of what it raised, or 0.

    The interpreter is left as it stands: its own end takes up to a second, and a thread of a C++
    library that asks for it meanwhile, as those of gloo do, aborts it: no exit code, no retry.
    """
    code = 0
    try:
        yield
    except SystemExit as end:
        code = end.code or 0
    os._exit(code)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """A context that a signal ends as an error does, so that temporary folders go."""
    before = {number: signal.signal(number, stop) for number in choose_signals()}
    hook, sys.unraisablehook = sys.unraisablehook, stop_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(number: int, frame: FrameType | None) -> None:
    """Leave whatever is under way, but for an import, which is left when it is done."""
    ignore_signals()  # nothing disturbs that
    if is_importing(frame):
        stop_soon(number)
        return
    raise Stopped(number)


def is_importing(frame: FrameType | None) -> bool:
    """Whether the command imports something: a module in C may die of an exception, or drop it."""
    while frame and frame.f_code is not main.__code__:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def stop_again(swallowed: Any) -> None:
    """Where code called from C swallowed the exception, raise it again once that has returned."""
    if isinstance(swallowed.exc_value, Stopped):
        stop_soon(swallowed.exc_value.number)
    else:
        sys.__unraisablehook__(swallowed)


def stop_soon(number: int) -> None:
    """Try again in a moment."""
    signal.signal(signal.SIGALRM, lambda _, frame: stop(number, frame))
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def ignore_signals() -> None:
    """Let what ends a command do nothing any more."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def fail(title: str, message: str, code: int) -> typing.NoReturn:
    """End with a message on the last lines of stderr."""
    ignore_signals()  # one end is enough
    try:
        for line in message.split("\n"):
            sys.stderr.write(f"tabatlas {title}: error: {line}\n")
    except OSError:  # nobody reads it any more
        sys.stderr = None
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the first word."""
    others = {name: meaning for name, (_, meaning) in OTHERS.items()}
    stages, others = (list_commands(commands) for commands in (STAGES, others))
    top = argparse.ArgumentParser(
        prog="tabatlas",
        description="Rebuild a single-cell atlas; each stage is a command.",
        epilog=f"stages, in the order of the data:\n{stages}\n\nothers:\n{others}\n\n"
        "`tabatlas COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = [*STAGES, *OTHERS]
    top.add_argument("stage", choices=choices, metavar="COMMAND", help="one of those below")
    return top


def list_commands(commands: Mapping[str, str]) -> str:
    """Commands and their meaning, a line each."""
    return "\n".join(f"  {name:<10} {meaning}" for name, meaning in commands.items())


def find_module(stage: str) -> str:
    """The module whose functions a command runs."""
    return OTHERS[stage][0] if stage in OTHERS else f"tabatlas.{stage}.stage"


def parse_command(stage: str, arguments: Sequence[str]) -> Callable[[], None]:
    """The call that the arguments after the stage's name mean."""
    module = importlib.import_module(find_module(stage))
    parser = argparse.ArgumentParser(prog=f"tabatlas {stage}", description=inspect.getdoc(module))
    commands = find_commands(module)
    if list(commands) == ["run"]:
        add_flags(parser, commands["run"])
        parser.set_defaults(command="run")
    else:
        choices = parser.add_subparsers(dest="command", required=True)
        for name, function in commands.items():
            text = inspect.getdoc(function) or ""
            add_flags(
                choices.add_parser(name, help=text.split("\n")[0], description=text), function
            )
    values = vars(parser.parse_args(arguments))
    function = commands[values.pop("command")]
    return lambda: call_function(function, values)


def call_function(function: Callable[..., None], values: dict[str, Any]) -> None:
    """Call a function with the values of all its parameters, by position where it wants that."""
    positional = [values.pop(name) for name in find_positional(function)]
    function(*positional, **values)


def find_positional(function: Callable[..., None]) -> list[str]:
    """Parameters before a `/`: what the command line gives without a flag."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY]


def find_commands(module: ModuleType) -> dict[str, Callable[..., None]]:
    """The module's own functions of which every parameter says what its flag means."""
    return {
        name.rstrip("_"): function  # `list_` is the command `list`
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and function.__annotations__.keys() > {"return"}
        and all(
            typing.get_origin(hint) is typing.Annotated
            for key, hint in typing.get_type_hints(function, include_extras=True).items()
            if key != "return"
        )
    }


def add_flags(parser: argparse.ArgumentParser, function: Callable[..., None]) -> None:
    """One flag per parameter: `Annotated[type, help]`, required where it has no default.

    A parameter that is positional only is an argument without a flag.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, text = typing.get_args(hints[name])
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(name, help=text, **parse_kind(kind) | {"metavar": name.upper()})
            continue
        required = parameter.default is inspect.Parameter.empty
        options: dict[str, Any] = {"help": text, "required": required}
        if not required:
            options["default"] = parameter.default
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, **options, **parse_kind(kind))


def parse_kind(kind: Any) -> dict[str, Any]:
    """What argparse needs for a type: `Path`, `list[Path]`, `bool`, `str | None` …"""
    if kind is bool:
        return {"action": "store_true"}
    if typing.get_origin(kind) is list:
        return {"nargs": "*", **parse_kind(typing.get_args(kind)[0])}
    options = [part for part in typing.get_args(kind) if part is not NoneType]
    kind = options[0] if options else kind
    return {"type": kind, "metavar": "PATH" if kind is Path else "VALUE"}
