"""What the doctor says about a cluster, by the recorded answers of Slurm's commands."""

import pytest

from tabatlas.config import load_config
from tabatlas.doctor.examination import CHECKS, find_profile
from tabatlas.doctor.findings import Site

CONFIG = {"atlas": "tiny", "datasets": [{"dataset_id": "one", "path": "one.h5ad"}]}


def look(cluster, *titles, **config):
    """State and text of the checks of those titles, or of all that are about Slurm."""
    name = cluster.write()
    site = Site(name, find_profile(name), load_config(CONFIG | config)[0])
    chosen = [check for title, check in CHECKS if not titles or title in titles]
    return [tuple(finding) for check in chosen for finding in check(site)]


def failures(cluster, *titles, **config):
    return [text for state, text in look(cluster, *titles, **config) if state == "failed"]


def test_a_sound_cluster_passes_every_check(cluster):
    found = look(cluster, pretrain={"micro_batches": 4})
    # The folders of this test are for temporary files, which no other node sees.
    assert [
        text for state, text in found if state == "failed" and "this machine alone" not in text
    ] == []


def test_what_partitions_have_is_told(cluster):
    (cpu, gpu) = look(cluster, "partition")
    assert cpu[1].startswith("cpu: 1 of 2 nodes up, with up to 16 GB; for ")
    assert gpu[1].startswith("gpu: 2 of 2 nodes up, with up to 128 GB and 2 × a100, 4 × h100; for ")


@pytest.mark.parametrize(
    ("rule", "wishes", "title", "message"),
    [
        ("pretran", {"gpu": 1}, "rules", "no rule `pretran` becomes a job. There are: append, "),
        ("pretrain", {"slurm_partition": "gpus"}, "partition", "no `gpus` for pretrain. There are"),
        ("qc", {"slurm_partition": "long"}, "partition", "for qc, but it takes no jobs."),
        ("qc", {"slurm_partition": "broken"}, "partition", "broken: 0 of 1 nodes up"),
        ("pretrain", {"gpu": 5}, "node gpus", "5 × h100 a node; the best node of gpu has 2 × a1"),
        ("pretrain", {"gpu_model": "b200"}, "node gpus", "pretrain asks for 2 × b200 a node"),
        ("finetune", {"gres": "gpu:a100:3"}, "node gpus", "finetune asks for 3 × a100 a node"),
        ("pretrain", {"gpu_model": "a100-sxm4"}, "node gpus", "`a100-sxm4`: the executor takes"),
        ("pretrain", {"gpu_model": 3090}, "node gpus", "gpu_model `3090`: the executor takes"),
        ("qc", {"gpu": 1}, "node gpus", "the best node of cpu has none"),
        ("finetune", {"gpu": 10, "nodes": 2, "gres": ""}, "node gpus", "asks for 5 × GPU a node"),
        ("finetune", {"gpu": 3, "nodes": 2, "gres": ""}, "node gpus", "asks for 3 GPUs on 2"),
        ("pretrain", {"nodes": 3, "gpu": 3}, "node gpus", "pretrain asks for 3 nodes; gpu has 2"),
        ("pretrain", {"runtime": "13h"}, "limits", "780 minutes, gpu allows 720"),
        ("qc", {"mem": "17GB"}, "limits", "17000 MB, the largest node of cpu has 16000"),
        ("qc", {"slurm_account": "theirs"}, "account", "no theirs among yours: lab, other."),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_met_is_named(cluster, rule, wishes, title, message):
    cluster.set_resources(rule, **wishes)
    (text,) = failures(cluster, title)
    assert message in text


def test_gpus_of_each_node_are_told(cluster):
    assert look(cluster, "node gpus") == [
        (
            "ok",
            "1 × GPU for replicate, 1 × a100 for explain, 1 × GPU for finetune, "
            "1 × GPU for perturb, 2 × h100 for pretrain",
        )
    ]


def test_of_several_partitions_one_must_fit(cluster):
    titles = ("partition", "node gpus", "limits")
    cluster.set_resources("pretrain", slurm_partition="cpu,gpu", runtime="24h", gpu=1)
    assert failures(cluster, *titles) == []  # 24 hours in one, a GPU in the other
    cluster.set_resources("pretrain", slurm_partition="gpu,gpus")
    missing, short = failures(cluster, *titles)
    assert missing.startswith("no `gpus` for pretrain.")
    assert short.startswith("pretrain asks for 1440 minutes, gpu allows 720.")


def test_ranks_must_divide_the_micro_batches(cluster):
    (text,) = failures(cluster, "ranks", pretrain={"micro_batches": 3})
    assert text == (
        "pretrain: 2 processes, one for each GPU, cannot share 3 micro_batches. "
        "Set `pretrain.micro_batches: 2`"
    )
    assert failures(cluster, "ranks", pretrain={"micro_batches": 4}) == []


def test_slurm_has_the_last_word(cluster):
    cluster.refuse("--gpus-per-node=h100:2", "allocation failure: Invalid qos specification")
    (text,) = failures(cluster, "trial")
    assert "Slurm refuses jobs of pretrain" in text
    assert "allocation failure: Invalid qos specification" in text


def test_what_only_makes_a_job_wait_ends_no_run(cluster):
    cluster.refuse(
        "--test-only", "allocation failure: Required node not available (down, drained or reserved)"
    )
    assert {state for state, _ in look(cluster, "trial")} == {"not checked"}


def test_it_is_asked_for_the_options_that_the_site_wants(cluster):
    cluster.profile["default-resources"] = {
        "slurm_partition": "cpu",
        "slurm_account": "lab",
        "qos": "normal",
        "slurm_extra": "'--licenses=a:1 --exclusive'",
    }
    cluster.refuse("--account=lab*--qos=normal*--licenses=a:1*--exclusive", "seen")
    assert all("seen" in text for text in failures(cluster, "trial"))
    assert failures(cluster, "trial")


def test_a_partition_that_jobs_calculate_is_not_checked(cluster):
    cluster.set_resources("qc", slurm_partition="'gpu' if threads > 4 else 'cpu'")
    states = dict(reversed(one) for one in look(cluster, "partition"))
    assert states["calculated for each job of qc"] == "not checked"


def test_without_accounting_the_account_is_not_checked(cluster):
    cluster.commands.answer("sacctmgr", "exit 1")
    ((state, _),) = look(cluster, "account")
    assert state == "not checked"


def test_jobs_must_be_remembered_as_long_as_squeue_is_asked(cluster):
    cluster.answer("scontrol", "MinJobAge               = 60 sec\n")
    (text,) = failures(cluster, "job age")
    assert text.startswith("MinJobAge is 60 s, but squeue is asked every 180 s")


@pytest.mark.parametrize(
    ("kind", "mode", "no_requeue", "state"),
    [
        ("preempt/none", "OFF", True, "ok"),
        ("preempt/qos", "REQUEUE", False, "ok"),
        ("preempt/qos", "REQUEUE", True, "not checked"),
        ("preempt/partition_prio", "CANCEL", False, "not checked"),
    ],
)
def test_who_is_preempted_must_be_requeued(cluster, kind, mode, no_requeue, state):
    cluster.answer("scontrol", f"PreemptMode             = {mode}\nPreemptType = {kind}\n")
    cluster.profile["slurm-no-requeue"] = no_requeue
    ((found, text),) = look(cluster, "preemption")
    assert found == state
    assert f"PreemptType is {kind}, PreemptMode {mode}" in text


def test_where_slurm_is_silent_that_fails_and_the_rest_is_not_checked(cluster):
    for command in ("sinfo", "squeue", "scontrol", "sacctmgr", "sbatch"):
        (cluster.commands.folder / command).unlink()
    about = ("queue", "job age", "partition", "node gpus", "limits", "account", "trial")
    found = look(cluster, *about)
    assert [state for state, _ in found] == ["failed"] + ["not checked"] * 3
    assert found[0][1].startswith("squeue does not answer")


def test_paths_of_this_machine_alone_will_not_do(cluster):
    texts = failures(cluster, "sharing")
    assert texts or "not checked" in [state for state, _ in look(cluster, "sharing")]
    cluster.answer("sinfo", "cpu*|up|infinite|16000|(null)|idle|cpu1|127.0.0.1\n")
    assert look(cluster, "sharing") == [("ok", "every node of the cluster is this machine")]
