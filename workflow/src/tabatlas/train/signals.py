"""What may end a run from outside: signals, and that nothing moves any more."""

import os
import signal
import sys
import threading
import time

from tabatlas import slurm
from tabatlas.errors import Interrupted

# Slurm warns with USR1 or TERM before it kills; a terminal sends INT for Ctrl-C, and HUP when it is
# closed; the alarm is our own, before the job's time is over.
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT, signal.SIGHUP)
WARNING_SECONDS = 120  # a step, its checkpoint on a slow disk, and the other ranks'


def choose_signals() -> list[signal.Signals]:
    """Those of `STOPPING` that somebody may mean us by."""
    # The shell of our rules ignores these, for itself; `nohup` ignores HUP for what it starts, and
    # a shell INT for what runs behind it.
    always = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    return [one for one in STOPPING if one in always or signal.getsignal(one) != signal.SIG_IGN]


def name_signal(number: int) -> str:
    """What stopped us, as a message says it."""
    alarm = number == signal.SIGALRM
    return "the job's time limit, which is near" if alarm else signal.Signals(number).name


def await_end_of_job() -> None:
    """Have SIGALRM come before the Slurm job of this process reaches its time limit.

    Slurm's own signal reaches only the first process of a job step at most sites.
    """
    job = os.environ.get("SLURM_JOB_ID")
    end = slurm.end_of_job(job) if job else None
    if end is not None:
        left = max(end - time.time(), 0)
        # Half a minute of a job of two would not be worth its start.
        wait = left - min(WARNING_SECONDS, left / 5)
        signal.setitimer(signal.ITIMER_REAL, max(wait, 0.001))


class BrokenOff(Exception):
    """A signal came in the midst of what takes longer than who sent it may wait."""


class Listening:
    """Notes the signals of `STOPPING` while the block runs; what is under way goes on."""

    def __init__(self) -> None:
        self.heard: int | None = None

    def __enter__(self) -> "Listening":
        self.before = {number: signal.signal(number, self.note) for number in choose_signals()}
        return self

    def note(self, number: int, frame: object) -> None:
        """Remember the signal."""
        self.heard = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.heard and error[0] is None:  # after the last step: whoever listened before acts
            signal.raise_signal(self.heard)

    def describe(self) -> str:
        """Which signal it was."""
        return name_signal(self.heard) if self.heard else "a signal to another rank"


class Watchdog:
    """Ends the process, resumably, when it was not fed for as many minutes.

    A rank that waits for one that hangs cannot be woken in another way. Time in which the whole
    process was stopped does not count.
    """

    TICK = 1.0  # seconds

    def __init__(self, minutes: float) -> None:
        self.minutes, self.ticks = minutes, 0
        self.done = threading.Event()

    def feed(self) -> None:
        """Say that the run goes on."""
        self.ticks = 0

    def __enter__(self) -> "Watchdog":
        threading.Thread(target=self.watch, name="watchdog", daemon=True).start()
        return self

    def watch(self) -> None:
        """Count ticks until somebody feeds, or it is over."""
        while not self.done.wait(self.TICK):
            self.ticks += 1
            if self.ticks * self.TICK > 60 * self.minutes:
                try:
                    sys.stderr.write(
                        f"tabatlas: error: nothing moved for {self.minutes:g} minutes "
                        "(hang_minutes): a rank, a disk or a device hangs. Run it again to "
                        "resume.\n"
                    )
                    sys.stderr.flush()
                finally:  # also where nobody reads it any more
                    os._exit(Interrupted.exit_code)

    def __exit__(self, *error: object) -> None:
        self.done.set()
