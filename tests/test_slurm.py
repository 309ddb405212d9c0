import time
import uuid
from pathlib import Path

import pytest

from tabatlas import slurm
from tabatlas.errors import TabatlasError


def test_without_slurm_nothing_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert slurm.ask("squeue") is None
    assert slurm.end_of_job("1") is None
    assert slurm.find_active(Path.cwd()) is None
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


def test_defaults_of_the_user_hide_no_jobs(fake_slurm, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    fake_slurm.answer("squeue", 'test -z "$SQUEUE_PARTITION" && echo 12 RUNNING')
    assert slurm.find_states() == {"12": "RUNNING"}


def test_our_jobs_are_told_by_name_and_folder(fake_slurm, tmp_path):
    ours = f"tabatlas_{uuid.uuid4()}"
    lines = [
        f"1|{ours}|{tmp_path}",
        f"2|{ours}|{tmp_path}/other",
        f"3|interactive|{tmp_path}",
        f"4|tabatlas_notes|{tmp_path}",
        f"5|{ours}|{tmp_path}",
    ]
    fake_slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    assert slurm.find_active(tmp_path) == {"1", "5"}


@pytest.fixture
def two_jobs(fake_slurm, tmp_path, monkeypatch):
    """Jobs 3 and 4 of this folder; a cancelled one is gone with the third look after that."""
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    line = f"tabatlas_{uuid.uuid4()}|{tmp_path}"
    fake_slurm.answer("scancel", ":")
    fake_slurm.answer(
        "squeue",
        f"""calls="{fake_slurm.folder}/calls"
        echo '4|{line}'
        test "$(sed -n '/scancel 3/,$p' "$calls" | grep -c squeue)" -ge 3 || echo '3|{line}'""",
    )
    return fake_slurm


def test_jobs_of_a_dead_snakemake_are_cancelled_and_awaited(two_jobs, tmp_path, caplog):
    slurm.cancel_orphans(tmp_path, {"2", "3"})
    assert "Slurm jobs 3 are" in caplog.text
    assert [call.split()[0] for call in two_jobs.calls] == ["squeue", "scancel", *["squeue"] * 3]


def test_jobs_that_make_something_else_are_left_alone(two_jobs, tmp_path, caplog):
    slurm.cancel_orphans(tmp_path, {"2"})
    slurm.cancel_orphans(tmp_path / "other", {"3"})
    assert not any(call.startswith("scancel") for call in two_jobs.calls)
    assert not caplog.text


def test_a_job_that_does_not_end_ends_the_run(two_jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "CANCEL_SECONDS", 0.1)
    with pytest.raises(TabatlasError, match=r"Slurm jobs 4, .* Nothing was submitted"):
        slurm.cancel_orphans(tmp_path, {"4"})


def test_a_queue_that_does_not_answer_is_not_an_empty_one(two_jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "CANCEL_SECONDS", 0.1)
    two_jobs.answer("scancel", f"printf '#!/bin/sh\\nexit 1\\n' > '{two_jobs.folder}/squeue'")
    with pytest.raises(TabatlasError, match="Slurm jobs 3, "):
        slurm.cancel_orphans(tmp_path, {"3"})


def test_without_an_answer_nobody_knows_of_orphans(fake_slurm, tmp_path):
    fake_slurm.answer("squeue", "exit 1")
    slurm.cancel_orphans(tmp_path, set())
    with pytest.raises(TabatlasError, match="squeue does not answer"):
        slurm.cancel_orphans(tmp_path, {"3"})
