# What jobs ask for, how they are launched, and what is noted where one fails.

from math import inf
from pathlib import Path

from snakemake.io import apply_wildcards

from tabatlas import slurm
from tabatlas.doctor.partitions import find_partitions, read_partitions
from tabatlas.doctor.profile import read_value

RANK_MB = 4000  # a process that trains, and its driver of the GPU

# `logged LOG MB COMMAND`: runs a command, and its words go to the log too.
#
# A signal to all processes of a job is for the command. If the shell or `tee` ended with it, the
# job would be over before the command has written its checkpoint, and its last words lost.
#
# 137 is how a command ends that the kernel has killed for its memory (of a rank torchrun says -9), or
# that was refused more. What it had is noted, and the next attempt gets more.
shell.prefix("""
set -euo pipefail
trap '' TERM USR1
logged() {{
  local log=$1 mb=$2 code=0
  shift 2
  [ -z "${{SLURM_JOB_ID:-}}" ] || echo "$SLURM_JOB_ID $mb" > "${{log%.log}}.job"
  rm -f "$log"  # an attempt on a node that is cut off may still write to its own
  "$@" 2>&1 | tee -i "$log" || code=$?
  if [ $code = 137 ] || {{ [ $code != 0 ] && grep -Eqs 'exitcode *: (-9|137) ' "$log"; }}; then
    echo "$mb" > "${{log%.log}}.memory"
  fi
  return $code
}}
""")


def minutes(base, per_million_cells=0):
    """Time for what begins anew when it is run again: a retry gets more, if the partition has it.

    The cells' part is three times and more what workflow/docs/scale.md has.
    """

    def find_minutes(wildcards, rulename, attempt):
        wanted = base + per_million_cells * count_cells(wildcards) / 1e6
        if int(wanted * attempt) == base:  # Slurm is not asked for nothing
            return base
        most = max((one.minutes for one in partitions_of(rulename)), default=inf)
        return int(min(wanted * attempt, max(base, most)))

    return find_minutes


def memory(base, per_thousand_cells=0, per_input_mb=0, most_cells=inf):
    """Memory in MB by what is read: the cells of one dataset, or of all of them.

    The numbers are those of workflow/docs/scale.md, with room. No more than `most_cells` are held.
    Each further GPU of a node has a process of its own.

    Where an attempt has failed for want of memory, twice what it had, as far as the partition goes.
    """

    def find_memory(wildcards, input, rulename, attempt):
        held = min(count_cells(wildcards), most_cells)
        wanted = base + per_thousand_cells * held / 1000
        wanted += RANK_MB * (n_gpus(rulename) - 1)
        if per_input_mb:
            wanted += per_input_mb * input.size_mb
        log = Path(apply_wildcards(workflow.get_rule(rulename).log[0], wildcards))
        had, failed = read_attempt(log, attempt)
        if failed:
            most = max((one.memory for one in partitions_of(rulename)), default=inf)
            had = min(2 * had, most)
        return int(max(wanted, had))

    return find_memory


def read_attempt(log, attempt):
    """How many MB the attempt before had, and whether they were too few.

    Its shell has noted that, or Slurm knows, where the shell was ended too; then it is noted here. A
    note also counts for a first attempt: a later snakemake begins with what is enough.
    """
    job, megabytes = read_words(log.with_suffix(".job"), 2)
    if attempt > 1 and job and (slurm.find_states() or {}).get(job) == "OUT_OF_MEMORY":
        log.with_suffix(".memory").write_text(megabytes)  # Slurm will forget
    (noted,) = read_words(log.with_suffix(".memory"), 1)
    if attempt > 1 and int(megabytes) > int(noted):
        return int(megabytes), False
    return int(noted), bool(int(noted))


def read_words(path, n_words):
    """The words of a note; zeros where it is not there, or was cut off by a full disk."""
    words = path.read_text().split() if path.exists() else []
    return words if len(words) == n_words else [0] * n_words


def partitions_of(rulename):
    """The partitions that the jobs of a rule may go to, as far as Slurm tells."""
    return find_partitions(read_partitions(), asked(rulename, "slurm_partition", ""))


def count_cells(wildcards):
    """Cells of the dataset of a job, or of the atlas, as far as they have been fetched."""
    datasets = [wildcards.dataset] if "dataset" in wildcards.keys() else DATASETS
    facts = [Path(f"{RESULTS}/fetch/{dataset}.json") for dataset in datasets]
    return sum(
        json.loads(path.read_text())["n_cells"] for path in facts if path.exists()
    )


def submitted_jobs():
    """Slurm's numbers of jobs that were to make what this run makes.

    Snakemake notes a number when it submits, and forgets it when the job begins; that notes its own.
    """
    for job in workflow.dag.needrun_jobs():
        yield from workflow.persistence.external_jobids(job)
        notes = (read_words(Path(log).with_suffix(".job"), 2)[0] for log in job.log)
        yield from filter(None, notes)


def asked(rulename, resource, otherwise=None):
    """What the profile or the command line asks for a rule."""
    resources = workflow.get_rule(rulename).resources
    found = read_value(resources[resource].raw) if resource in resources else None
    return otherwise if found is None else found


def n_nodes(rulename):
    """On how many nodes a rule runs."""
    return asked(rulename, "nodes", 1)


def n_gpus(rulename):
    """On how many GPUs of each node a rule trains; 1 where it needs none."""
    nodes = n_nodes(rulename)
    return max(1, asked(rulename, "gpu", nodes) // nodes)


def only_on_several(value):
    """A resource that exists only where a rule runs on several nodes."""

    def find_value(wildcards, rulename):
        return value(rulename) if n_nodes(rulename) > 1 else None

    return find_value


def launch(wildcards, rulename, threads):
    """What starts a process per GPU, which is nothing where there is one."""
    gpus, nodes = n_gpus(rulename), n_nodes(rulename)
    torchrun = (
        f"torchrun --no-python --nproc-per-node={gpus}"
        " --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGUSR1"
    )
    if nodes == 1:
        return f"{torchrun} --standalone" if gpus > 1 else ""
    return (
        f"srun --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={gpus * threads}"
        f" --kill-on-bad-exit=1 --wait=0 {torchrun} --nnodes={nodes} --rdzv-backend=c10d"
        " --rdzv-id=$SLURM_JOB_ID"
        " --rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 10000))"
    )


def gpus_of_a_node(rulename):
    """GPUs of each node as a generic resource: `--gpus` alone may be dealt out unevenly."""
    model = asked(rulename, "gpu_model")
    return f"gpu:{model}:{n_gpus(rulename)}" if model else f"gpu:{n_gpus(rulename)}"


# What training on GPUs needs. The profile says how many (`gpu`, of all nodes together),
# which (`gpu_model`), where (`slurm_partition`) and on how many nodes (`nodes`). How it is launched
# is a resource, because another number of GPUs is no reason to train again.
GPU = dict(
    nodes=1,
    gpu=lambda wildcards, rulename: n_nodes(rulename),
    cpus_per_task=lambda wildcards, rulename, threads: n_gpus(rulename) * threads,
    launch=launch,
    gres=only_on_several(gpus_of_a_node),
    mpi=only_on_several(lambda rulename: "srun"),
    tasks=only_on_several(n_nodes),
    tasks_per_gpu=only_on_several(lambda rulename: 0),
)
