"""Trainings whose job, node or snakemake ends before they do: the model is the undisturbed one."""

import os
import re
import signal

import psutil
import pytest
from cluster import await_that, sleep_until_the_alarm

from trainings import LONG, SHORT, copy_packed

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def states(cluster):
    """How each attempt of the pretraining ended since the test began."""
    before = len(cluster.jobs("pretrain"))
    return lambda: [job.state for job in cluster.jobs("pretrain")[before:]]


@pytest.fixture
def pretrain(submit, built, tmp_path):
    """Start the pretraining of the tiny atlas with some knobs."""
    return lambda knobs, *options, **resources: submit(
        copy_packed(built, tmp_path, knobs), *options, **resources
    )


def test_a_training_cut_by_its_time_limit_three_times(cluster, pretrain, states, undisturbed):
    training, running = pretrain(SHORT, runtime=2)
    step = trainer = 0
    for _ in range(3):
        trainer = training.await_trainer(step + 20, other_than=trainer)
        cut = cluster.jobs("pretrain")[-1]
        sleep_until_the_alarm(trainer)
        await_that(lambda pid=trainer: not os.path.exists(f"/proc/{pid}"))
        step = max(training.steps().values())
    # It ends in this one, however much else runs on this machine.
    cluster.limit_next("pretrain", minutes=60, after=cut.id)
    assert running.wait() == 0, training.read_log()
    assert states() == ["FAILED"] * 3 + ["COMPLETED"]
    logs = (training.workdir.path / "logs/slurm/rule_pretrain").iterdir()
    log = "".join(path.read_text() for path in logs)
    stopped = re.findall(r"stopped by the job's time limit, which is near at step (\d+)", log)
    assert sorted(re.findall(r"resuming at epoch \d+, step (\d+)", log)) == sorted(stopped)
    assert len(stopped) == 3
    assert training.read_model() == undisturbed(SHORT)
    training.check_metrics()


def test_a_cancelled_training_goes_on_when_it_is_run_again(cluster, pretrain, states, undisturbed):
    training, running = pretrain(SHORT, "--retries", "0")
    training.await_trainer(20)
    cluster.ask("scancel", str(cluster.jobs("pretrain")[-1].id))
    assert running.wait() == 1
    assert training.start().wait() == 0, training.read_log()
    assert states() == ["CANCELLED", "COMPLETED"]
    assert training.read_model() == undisturbed(SHORT)
    training.check_metrics()


def test_a_node_that_is_set_down_loses_its_run_to_another(cluster, pretrain, states, undisturbed):
    training, running = pretrain(SHORT)
    first = training.await_trainer(20)
    job = cluster.jobs("pretrain")[-1]
    cluster.ask("scontrol", "update", f"nodename={job.node}", "state=down", "reason=test")
    training.await_trainer(20, other_than=first)
    assert running.wait() == 0, training.read_log()
    assert states() == ["NODE_FAIL", "COMPLETED"]
    assert cluster.jobs("pretrain")[-1].node != job.node
    assert training.read_model() == undisturbed(SHORT)
    training.check_metrics()


@pytest.fixture
def cut_off(cluster, states):
    """Cut the node of a trainer off, and wait for the next attempt; the trainer's process.

    Nothing has ended it, or will. It is stopped, that it is not done before the other.
    """

    def cut(training):
        trainer = training.await_trainer(20)
        os.kill(cluster.find_daemon(cluster.jobs("pretrain")[-1].node), signal.SIGKILL)
        os.kill(trainer, signal.SIGSTOP)
        await_that(lambda: len(states()) == 2, seconds=600)
        return trainer

    return cut


def test_a_trainer_on_a_node_that_is_cut_off_is_fenced(pretrain, cut_off, states, undisturbed):
    training, running = pretrain(LONG)
    first = cut_off(training)
    os.kill(first, signal.SIGCONT)
    second = training.await_trainer(20, other_than=first)
    await_that(lambda: not os.path.exists(f"/proc/{first}"))
    assert os.path.exists(f"/proc/{second}")
    assert running.wait() == 0, training.read_log()
    assert states() == ["NODE_FAIL", "COMPLETED"]
    log = (training.workdir.path / "logs/tiny/pretrain.log").read_text()
    assert "the job of its owner is over" in log
    assert training.read_model() == undisturbed(LONG)
    training.check_metrics()


def test_a_trainer_that_wakes_when_another_is_done_leaves_its_model_alone(
    pretrain, cut_off, states, undisturbed
):
    training, running = pretrain(SHORT)
    first = cut_off(training)
    above = [one for one in psutil.Process(first).parents() if "snakemake" in one.cmdline()]
    assert running.wait() == 0, training.read_log()
    os.kill(first, signal.SIGCONT)
    assert psutil.wait_procs(above, 300)[1] == []
    assert above
    assert not os.path.exists(f"/proc/{first}")
    assert states() == ["NODE_FAIL", "COMPLETED"]
    assert training.read_model() == undisturbed(SHORT)
    training.check_metrics()


def test_a_snakemake_after_a_killed_one_takes_over_its_job(cluster, pretrain, states, undisturbed):
    training, running = pretrain(LONG)
    first = training.await_trainer(20)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert training.start("--unlock").wait() == 0, training.read_log()
    again = training.start()
    training.await_trainer(40, other_than=first)
    assert not os.path.exists(f"/proc/{first}")
    assert again.wait() == 0, training.read_log()
    assert states() == ["CANCELLED", "COMPLETED"]
    assert training.read_model() == undisturbed(LONG)
    training.check_metrics()


def test_two_ranks_on_one_node_write_what_one_writes(cluster, pretrain, states, undisturbed):
    knobs = SHORT | {"micro_batches": 2}
    training, running = pretrain(knobs, gpu=2)
    assert running.wait() == 0, training.read_log()
    assert states() == ["COMPLETED"]
    assert training.read_model() == undisturbed(knobs)


def test_two_nodes_write_what_one_process_writes(cluster, pretrain, states, undisturbed):
    knobs = SHORT | {"micro_batches": 2}
    training, running = pretrain(knobs, nodes=2)
    assert running.wait() == 0, training.read_log()
    assert states() == ["COMPLETED"]
    assert cluster.jobs("pretrain")[-1].node == "gpu[1-2]"
    # The metrics among them name the cells of each step.
    assert training.read_model() == undisturbed(knobs)
