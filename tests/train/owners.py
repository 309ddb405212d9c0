"""Processes that own a run, and the files that others have left."""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import asdict

from tabatlas.errors import Interrupted
from tabatlas.train.owner import describe_process, own, path_of

# Forked children keep what a test has patched.
FORK = multiprocessing.get_context("fork")
LONG = 20.0  # a lease that no test waits for


class Child:
    """A process that owns the run and then does as it is told, one word at a time."""

    def __init__(self, folder):
        self.pipe, end = FORK.Pipe()
        self.process = FORK.Process(target=live, args=(folder, end), daemon=True)
        self.process.start()
        self.pid = self.process.pid

    def ask(self, word):
        self.pipe.send(word)

    def hear(self):
        assert self.pipe.poll(30), "the child is silent"
        return self.pipe.recv()

    def kill(self):
        self.process.kill()
        self.process.join()


def live(folder, pipe):
    try:
        with own(folder) as owner:
            pipe.send(owner.token)
            while pipe.recv() == "write":
                owner.check()
                (folder / f"weights-{owner.token}").write_text("bytes")
                pipe.send("written")
    except Interrupted as stop:
        pipe.send(str(stop))
        sys.exit(stop.exit_code)


def leave_record(folder, token=3, age=0.0, **changes):
    """The file of an owner that nobody keeps alive."""
    path = path_of(folder, token)
    path.write_text(json.dumps(asdict(describe_process()) | changes))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def time_own(folder):
    """Own a run: the token, and the seconds that it took."""
    began = time.monotonic()
    with own(folder) as owner:
        return owner.token, time.monotonic() - began


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())
