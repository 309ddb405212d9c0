"""Commands of Slurm that say what a test wants, earlier in PATH than any real ones."""

from pathlib import Path


class FakeSlurm:
    """A folder of such commands; what they were called with is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(self, command: str, script: str) -> None:
        """Let `command` be a shell script."""
        path = self.folder / command
        path.write_text(f'#!/bin/sh\necho "{command} $*" >> "{self.folder}/calls"\n{script}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The calls until now."""
        kept = self.folder / "calls"
        return kept.read_text().splitlines() if kept.exists() else []
