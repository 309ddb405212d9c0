"""Starts trainers by fork from a process that has imported everything: 0.6 s instead of four.

    python fork_server.py       reads an order a line from stdin, answers a line each

The server itself runs nothing that starts a thread. A child becomes the command `tabatlas` with
the marks of `watched`, its output in a log.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Forked:
    """A child of the server, with the part of `Popen` that tests need."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self.server, self.pid = server, pid
        self.returncode: int | None = None
        self.handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises `TimeoutExpired` as `Popen` does."""
        if self.returncode is None:
            if not select.select([self.handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout or 0)
            self.returncode = self.server.ask(reap=self.pid)
            os.close(self.handle)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has been reaped."""
        if self.returncode is None:
            os.kill(self.pid, number)


class ForkServer:
    """The server's process, for a `with` block; children that still run end with it."""

    def __enter__(self) -> "ForkServer":
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.children: list[Forked] = []
        self.lock = threading.Lock()
        return self

    def __exit__(self, *error: object) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait()
        self.process.stdin.close()
        self.process.wait()

    def ask(self, **order: Any) -> int:
        """Send an order; returns the answer."""
        with self.lock:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

    def start(
        self, arguments: list[str], log: Path, marks: Path, environment: dict[str, str]
    ) -> Forked:
        """A child that runs `tabatlas` with these arguments."""
        order = {"arguments": [str(marks), *arguments], "log": str(log), "environment": environment}
        child = Forked(self, self.ask(**order))
        self.children.append(child)
        return child


def serve() -> dict[str, Any] | None:
    """Answer orders; returns one in the child that is to follow it, None at the end."""
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                return order
        print(answer, flush=True)
    return None


def redirect(log: str) -> None:
    """Let the output go to a log, and read nothing."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(handle, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE)]
    import watched

    watched.import_all()
    order = serve()
    if order:
        redirect(order["log"])
        os.environ.update(order["environment"])
        watched.main(order["arguments"])
