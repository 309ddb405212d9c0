"""Fixtures of the tests of training."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import make_commands
from owners import LONG, Child

from small_atlas import Atlas
from tabatlas.train import owner as owner_module


@pytest.fixture(scope="session")
def commands(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Arguments of each stage that trains."""
    return make_commands(atlas, tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On one thread steps of some dozen cells are many times faster than on several that wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes, where the system allows it."""
    folder = tmp_path / "disk"
    is_mounted = False

    def mount(n_bytes: int) -> Path:
        nonlocal is_mounted
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this system does not let us mount a disk")
        is_mounted = True
        return folder

    yield mount
    if is_mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)  # files may still be mapped


@pytest.fixture
def pace(monkeypatch):
    """Heartbeats and a lease in the time of a test; call it with other ones."""

    def choose(beat=0.05, lease=LONG):
        monkeypatch.setattr(owner_module, "BEAT", beat)
        monkeypatch.setattr(owner_module, "LEASE", lease)

    choose()
    return choose


@pytest.fixture
def start():
    """Start children, all of which end with the test."""
    children = []

    def begin(folder):
        children.append(Child(folder))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
