import time
import uuid
from pathlib import Path

import pytest

from tabatlas import slurm


def test_without_slurm_nothing_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert slurm.ask("squeue") is None
    assert slurm.end_of_job("1") is None
    assert slurm.most_memory("cpu") is None
    assert slurm.find_orphans(Path.cwd()) == []
    assert not slurm.is_over("1")


def test_a_slurm_that_fails_or_hangs_says_nothing(fake_slurm, monkeypatch):
    fake_slurm.answer("squeue", "echo 12 COMPLETED; exit 1")
    assert not slurm.is_over("12")
    monkeypatch.setattr(slurm, "ANSWER_SECONDS", 0.2)
    fake_slurm.answer("squeue", "exec sleep 20")
    before = time.monotonic()
    assert slurm.ask("squeue") is None
    assert time.monotonic() - before < 5


def test_the_end_of_a_job_is_told_in_seconds(fake_slurm):
    fake_slurm.answer("squeue", 'test "$SLURM_TIME_FORMAT" = %s && echo 1796000000')
    assert slurm.end_of_job("12") == 1796000000
    assert "--jobs 12" in fake_slurm.calls[-1]


@pytest.mark.parametrize("told", ["N/A", "", "NONE", "2026-11-28T21:00:00"])
def test_a_job_without_a_limit_has_no_end(fake_slurm, told):
    fake_slurm.answer("squeue", f"echo {told}")
    assert slurm.end_of_job("12") is None


@pytest.mark.parametrize(
    ("told", "over"),
    [
        ("12 RUNNING", False),
        ("12 PENDING", False),
        ("12 COMPLETING", False),
        ("12 SUSPENDED", False),
        ("12 NODE_FAIL", True),
        ("12 TIMEOUT", True),
        ("12 CANCELLED", True),
        ("112 RUNNING", True),  # Slurm forgets jobs that have ended
    ],
)
def test_a_job_is_over_when_slurm_has_ended_or_forgotten_it(fake_slurm, told, over):
    fake_slurm.answer("squeue", f"echo 7 RUNNING; echo {told}")
    assert slurm.is_over("12") == over


def test_the_memory_of_a_partition_is_that_of_its_largest_node(fake_slurm):
    fake_slurm.answer("sinfo", "printf '16000\\n512000\\n64000\\n'")
    assert slurm.most_memory("big") == 512000
    assert "--partition big" in fake_slurm.calls[-1]
    assert slurm.most_memory(None) == 512000
    assert "--partition" not in fake_slurm.calls[-1]


@pytest.mark.parametrize(
    ("told", "minutes"),
    [("30:00", 30), ("2:00:00", 120), ("1-12:00:00", 2160), ("infinite", float("inf"))],
)
def test_the_longest_time_of_a_partition(fake_slurm, told, minutes):
    fake_slurm.answer("sinfo", f"echo {told}; echo 1:00")
    assert slurm.most_minutes("big") == minutes


def test_orphans_are_our_jobs_of_this_folder_alone(fake_slurm, tmp_path):
    ours = f"tabatlas_{uuid.uuid4()}"
    lines = [
        f"1|{ours}|{tmp_path}",
        f"2|{ours}|{tmp_path}/other",
        f"3|interactive|{tmp_path}",
        f"4|tabatlas_notes|{tmp_path}",
        f"5|{ours}|{tmp_path}",
    ]
    fake_slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    assert slurm.find_orphans(tmp_path) == ["1", "5"]


def test_cancelled_jobs_are_awaited(fake_slurm, monkeypatch):
    fake_slurm.answer("scancel", ":")
    fake_slurm.answer(
        "squeue",
        'echo 4 RUNNING; test "$(grep -c squeue "$(dirname "$0")/calls")" -gt 3'
        " || echo 3 COMPLETING",
    )
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    assert slurm.cancel(["3"]) == []
    assert fake_slurm.calls[0] == "scancel 3"
    monkeypatch.setattr(slurm, "CANCEL_SECONDS", 0)
    assert slurm.cancel(["4"]) == ["4"]


@pytest.fixture
def orphan(fake_slurm, tmp_path):
    """A job of this folder, in the queue until it is cancelled."""
    line = f"3|tabatlas_{uuid.uuid4()}|{tmp_path}"
    fake_slurm.answer("scancel", ":")
    fake_slurm.answer(
        "squeue",
        'if grep -q scancel "$(dirname "$0")/calls"; then echo 3 CANCELLED; '
        f"else echo '{line}'; fi",
    )
    folder = tmp_path / ".snakemake" / "locks"
    folder.mkdir(parents=True)
    (folder / "0.output.lock").touch()
    return fake_slurm


def test_orphans_are_cancelled(orphan, tmp_path, caplog):
    slurm.cancel_orphans(tmp_path)
    assert "scancel 3" in orphan.calls
    assert "jobs 3, " in caplog.text


def test_jobs_of_a_snakemake_with_a_lock_are_left_alone(orphan, tmp_path, caplog):
    (tmp_path / ".snakemake" / "locks" / "1.output.lock").touch()
    slurm.cancel_orphans(tmp_path)
    assert not any("scancel" in call for call in orphan.calls)
    assert "left alone" in caplog.text
