"""What jobs ask for, in a small workflow around the rules' own file."""

import json
import os
import subprocess
from pathlib import Path

import pytest

RESOURCES = Path(__file__).parents[2] / "workflow" / "rules" / "resources.smk"
HEAD = f"""
import json
RESULTS, DATASETS = "results", ("a", "b")
NAMES = ("killed", "killed_rank", "refused_rank", "ended", "failed")
include: {str(RESOURCES)!r}
"""
# Each writes down what its last attempt had; the first attempts end as their name says.
ATTEMPTS = """
rule all:
    input: expand("{name}.{dataset}", name=NAMES, dataset=DATASETS)
""" + "".join(
    f"""
rule {name}:
    output: "{name}.{{dataset}}"
    log: "logs/{name}/{{dataset}}.log"
    resources: mem_mb=memory(100, per_thousand_cells=10), runtime=minutes(7)
    shell:
        "if [ -e {name}-{{wildcards.dataset}} ]; then"
        " echo {{resources.mem_mb}} {{resources.runtime}} > {{output}}; else"
        " touch {name}-{{wildcards.dataset}}; export SLURM_JOB_ID={name}-{{wildcards.dataset}};"
        " logged {{log:q}} {{resources.mem_mb}} sh -c '{script}'; fi"
"""
    for name, script in {
        "killed": "kill -9 $$",
        "killed_rank": "echo exitcode : -9 of pid 7; exit 1",
        "refused_rank": "echo exitcode : 137 of pid 7; exit 1",
        "ended": "kill -9 $PPID",  # the shell too, and only Slurm can tell
        "failed": "exit 3",
    }.items()
)
TRAININGS = """
rule all:
    input: expand("{name}.json", name=["alone", "gpus", "nodes", "both"])
""" + "".join(
    f"""
rule {name}:
    output: "{name}.json"
    threads: 3
    resources: **GPU, mem_mb=memory(100)
    log: "{name}.log"
    params: asked=lambda wildcards, resources: json.dumps(dict(resources.items()))
    shell: "echo {{params.asked:q}} > {{output}}"
"""
    for name in ("alone", "gpus", "nodes", "both")
)


def run_workflow(folder: Path, text: str, *options: str) -> str:
    (folder / "Snakefile").write_text(HEAD + text)
    done = subprocess.run(
        ["snakemake", "--cores", "4", *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def fetched(tmp_path):
    folder = tmp_path / "atlas"
    (folder / "results" / "fetch").mkdir(parents=True)
    for dataset, n_cells in (("a", 5000), ("b", 20_000)):
        facts = folder / "results" / "fetch" / f"{dataset}.json"
        facts.write_text(json.dumps({"n_cells": n_cells}))
    return folder


def test_memory_follows_the_cells_and_grows_only_after_a_failure_of_memory(fetched, fake_slurm):
    fake_slurm.answer(
        "sinfo",
        "echo 'gpu|up|1-00:00:00|9000||idle|n1|n1'; echo 'cpu*|up|10:00|500||idle|n2|n2'",
    )
    fake_slurm.answer("squeue", "echo ended-a OUT_OF_MEMORY; echo ended-b NODE_FAIL")
    (fetched / "logs" / "failed").mkdir(parents=True)
    (fetched / "logs" / "failed" / "a.memory").touch()  # as a full disk leaves it
    run_workflow(fetched, ATTEMPTS, "--retries", "1")
    asked = {
        name: (fetched / name).read_text().split()
        for name in os.listdir(fetched)
        if "." in name and name.split(".")[1] in ("a", "b")
    }
    assert asked == {
        "killed.a": ["300", "10"],  # 100 MB and 10 for each of 5 thousand cells, twice
        "killed.b": ["500", "10"],  # 600, of which the partition has 500
        "killed_rank.a": ["300", "10"],
        "killed_rank.b": ["500", "10"],
        "refused_rank.a": ["300", "10"],
        "refused_rank.b": ["500", "10"],
        "ended.a": ["300", "10"],
        "ended.b": ["300", "10"],
        "failed.a": ["150", "10"],
        "failed.b": ["300", "10"],
    }
    assert (fetched / "logs" / "killed" / "a.memory").read_text() == "150\n"
    assert (fetched / "logs" / "ended" / "a.memory").read_text() == "150"
    assert not (fetched / "logs" / "failed" / "b.memory").exists()


def test_time_follows_the_cells_as_far_as_the_partition_goes(fetched, fake_slurm):
    fake_slurm.answer("sinfo", "echo 'cpu*|up|1-00:00:00|500||idle|n2|n2'")
    rates = (0, 1000, 100_000)
    text = 'rule all:\n    input: expand("time{number}", number=range(3))\n' + "".join(
        f"""
rule time{number}:
    output: "time{number}"
    resources: runtime=minutes(60, per_million_cells={rate})
    shell: "echo {{resources.runtime}} > {{output}}"
"""
        for number, rate in enumerate(rates)
    )
    run_workflow(fetched, text)
    found = [int((fetched / f"time{number}").read_text()) for number in range(3)]
    assert found == [60, 60 + 25, 24 * 60]


def test_training_starts_a_process_on_every_gpu(fetched):
    chosen = ["gpus:gpu=4", "nodes:nodes=2", "both:nodes=2", "both:gpu=8", "both:gpu_model=h100"]
    run_workflow(fetched, TRAININGS, "--set-resources", *chosen)
    asked = {path.stem: json.loads(path.read_text()) for path in fetched.glob("*.json")}
    keys = ("gpu", "nodes", "gres", "cpus_per_task", "mem_mb", "mpi", "tasks", "tasks_per_gpu")
    assert {name: [one.get(key) for key in keys] for name, one in asked.items()} == {
        "alone": [1, 1, None, 3, 100, None, None, None],
        "gpus": [4, 1, None, 12, 12_100, None, None, None],
        "nodes": [2, 2, "gpu:1", 3, 100, "srun", 2, 0],
        "both": [8, 2, "gpu:h100:4", 12, 12_100, "srun", 2, 0],
    }
    assert asked["alone"]["launch"] == ""
    assert asked["gpus"]["launch"].startswith("torchrun --no-python --nproc-per-node=4 ")
    assert "--standalone" in asked["gpus"]["launch"]
    for name, per_node in (("nodes", 1), ("both", 4)):
        srun, torchrun = asked[name]["launch"].split(" torchrun ")
        assert f"srun --ntasks=2 --ntasks-per-node=1 --cpus-per-task={3 * per_node} " in srun
        assert f"--nproc-per-node={per_node} " in torchrun
        assert "--nnodes=2" in torchrun
