"""Checks of a cluster: whether Slurm will take and end what a profile asks it for."""

import getpass
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from tabatlas.doctor.findings import TRAININGS, Finding, Site, failed, ok, unknown
from tabatlas.doctor.partitions import Partition, find_partitions
from tabatlas.doctor.profile import Request
from tabatlas.errors import show, show_some
from tabatlas.slurm import ANSWER_SECONDS, ask

# The executor looks after its jobs at least this often. One that ended and was forgotten in
# between is lost to it.
LONGEST_LOOK = 180  # s
# What is so today only: the real `sbatch` would let the job wait.
PASSING = re.compile(r"Required (node|partition)|busy|[Tt]imed out|[Uu]nable to contact|temporar")
# Types of GPUs that the executor takes; one of digits alone is a number to Snakemake.
MODEL = re.compile(r"(?!\d+$)[A-Za-z0-9_.]+")
SILENT = "Slurm does not answer here"


def check_queue(site: Site) -> Iterator[Finding]:
    """Whether `squeue` answers, by which jobs are followed."""
    if not site.uses_slurm:
        return
    command = site.profile.settings.get("status_command")
    if ask("squeue", "--noheader", "--me") is None:
        yield failed("squeue does not answer. Run this on a node from which `sbatch` works")
    elif command != "squeue":
        yield unknown(f"slurm-status-command: {command}: `squeue` notices scancel more surely")
    else:
        yield ok("squeue answers")


def check_job_age(site: Site) -> Iterator[Finding]:
    """Whether Slurm remembers jobs that ended until the executor has looked."""
    if not site.uses_slurm or site.profile.settings.get("status_command") != "squeue":
        return
    age = read_setting("MinJobAge")
    if age is None:
        yield unknown("MinJobAge: scontrol does not tell")
    elif int(age) < LONGEST_LOOK:
        yield failed(
            f"MinJobAge is {age} s, but squeue is asked every {LONGEST_LOOK} s: jobs would be "
            "forgotten before it is seen how they ended. Ask your site for Slurm's default, 300 s, "
            "or set slurm-status-command: sacct where accounting runs"
        )
    else:
        yield ok(f"MinJobAge is {age} s")


def check_preemption(site: Site) -> Iterator[Finding]:
    """Whether Slurm may end a job for another one, and starts it again: nobody else would."""
    if not site.uses_slurm:
        return
    kind, mode = (read_setting(f"Preempt{word}") for word in ("Type", "Mode"))
    if kind is None:
        yield unknown("PreemptType: scontrol does not tell")
        return
    is_requeued = "REQUEUE" in (mode or "") and not site.profile.settings.get("no_requeue")
    if kind.endswith("none") or is_requeued:
        yield ok(f"PreemptType is {kind}, PreemptMode {mode}")
    else:
        yield unknown(
            f"PreemptType is {kind}, PreemptMode {mode}: for a job that is preempted and not "
            "requeued snakemake waits for ever. With REQUEUE remove slurm-no-requeue; else take "
            "a partition or qos whose jobs are not preempted"
        )


def read_setting(name: str) -> str | None:
    """The first word of one of Slurm's settings."""
    told = ask("scontrol", "show", "config") or ""
    found = re.search(rf"^{name}\s*=\s*(\w\S*)", told, re.MULTILINE)
    return found and found[1]


def check_rules(site: Site) -> Iterator[Finding]:
    """Whether the rules that the profile names are there."""
    if site.profile is None:
        return
    known = {request.rule for request in site.requests}
    if not known:
        yield unknown("no workflow/rules here; run it from the project's folder")
        return
    wrong = [rule for rule in site.profile.of_rules if rule not in known]
    if wrong:
        yield failed(
            f"set-resources: no rule `{show_some(wrong)}` becomes a job. There are: "
            f"{', '.join(sorted(known))}"
        )
    else:
        yield ok(f"set-resources names {len(site.profile.of_rules)} rules, all of them there")


def check_partitions(site: Site) -> Iterator[Finding]:
    """Whether the partitions that rules ask for exist and take jobs, and what they have."""
    if not site.uses_slurm:
        return
    if site.partitions is None:
        yield unknown(SILENT)
        return
    for wanted in dict.fromkeys(one.partition for one in site.requests):
        rules = show_some([one.rule for one in site.requests if one.partition == wanted], 4)
        if wanted is None:
            yield unknown(f"calculated for each job of {rules}")
        else:
            yield from judge_partitions(site, wanted, rules)


def judge_partitions(site: Site, wanted: str, rules: str) -> Iterator[Finding]:
    """Whether the partitions that a name means exist and take jobs, and what they have."""
    found = find_partitions(site.partitions, wanted)
    for one in found:
        told = (
            f"{one.name}: {len(one.usable)} of {len(one.nodes)} nodes up, with up to "
            f"{one.memory / 1000:.0f} GB{f' and {one.cards}' if one.cards else ''}; for {rules}"
        )
        if one.is_up and one.usable:
            yield ok(told)
        else:
            closed = "" if one.is_up else ", but it takes no jobs"
            yield failed(f"{told}{closed}. Set another slurm_partition, or wait until it is back")
    names = [f"`{name}`" for name in wanted.split(",") if name not in site.partitions]
    if (wanted and names) or not found:
        missing = ", ".join(names) if wanted else "default partition"
        yield failed(
            f"no {missing} for {rules}. There are: {', '.join(site.partitions)}. "
            "Set slurm_partition"
        )


def check_gpus(site: Site) -> Iterator[Finding]:
    """Whether the nodes of a partition have the GPUs that are asked of each, and are enough."""
    asked = [one for one in site.requests if one.n_gpus or one.n_nodes > 1]
    if not site.partitions:
        return
    wrong = [text for one in asked for text in find_best(site, one, find_shortage)]
    yield from map(failed, wrong)
    if asked and not wrong:
        yield ok(", ".join(f"{one.wish} for {one.rule}" for one in asked))


def find_best(
    site: Site, request: Request, find: Callable[[Request, Partition], Iterator[str]]
) -> list[str]:
    """What is wrong with the partition of a request; of several with the one that is least so."""
    partitions = find_partitions(site.partitions, request.partition)
    return min((list(find(request, one)) for one in partitions), key=len, default=[])


def find_shortage(request: Request, one: Partition) -> Iterator[str]:
    """What a partition lacks of what a request wants."""
    if request.gpu_model and not MODEL.fullmatch(request.gpu_model):
        yield (
            f"{request.rule}: gpu_model `{request.gpu_model}`: the executor takes letters, digits, "
            "_ and . only, and not digits alone. Remove it, and set constraint to a feature of "
            "the nodes that have it"
        )
    elif request.n_gpus % request.n_nodes:
        yield (
            f"{request.rule} asks for {request.n_gpus} GPUs on {request.n_nodes} nodes, which is "
            "not the same number on each. Set gpu"
        )
    elif one.count_gpus(request.gpu_model) < request.of_node:
        yield (
            f"{request.rule} asks for {request.wish} a node; the best node of {one.name} has "
            f"{one.cards or 'none'}. Set gpu, gpu_model or slurm_partition"
        )
    if len(one.nodes) < request.n_nodes:
        yield (
            f"{request.rule} asks for {request.n_nodes} nodes; {one.name} has {len(one.nodes)}. "
            "Set nodes"
        )


def check_limits(site: Site) -> Iterator[Finding]:
    """Whether time and memory that rules ask for are within those of their partitions."""
    if not site.partitions:
        return
    wrong = [text for one in site.requests for text in find_best(site, one, find_excess)]
    yield from map(failed, wrong)
    if not wrong:
        yield ok("runtime and mem_mb are within the partitions'; memory by input is seen later")


def find_excess(request: Request, one: Partition) -> Iterator[str]:
    """What a request wants beyond the limits of a partition."""
    if request.minutes > one.minutes:
        yield (
            f"{request.rule} asks for {request.minutes} minutes, {one.name} allows "
            f"{one.minutes:.0f}. Set its `runtime` under set-resources: a training resumes"
        )
    if request.memory > one.memory:
        yield (
            f"{request.rule} asks for {request.memory} MB, the largest node of {one.name} has "
            f"{one.memory}. Set its `mem_mb`, or another slurm_partition"
        )


def check_account(site: Site) -> Iterator[Finding]:
    """Whether the user may use the account, where Slurm keeps accounts."""
    if not site.uses_slurm:
        return
    query = ("sacctmgr", "--noheader", "--parsable2", "list", "associations", "format=account")
    told = ask(*query, f"user={getpass.getuser()}") or ""
    yours = sorted({line.strip().lower() for line in told.splitlines()} - {""})
    wanted = {name for one in site.requests for name in re.split(r"[,\s]+", one.account) if name}
    wrong = sorted(name for name in wanted if name.lower() not in yours)
    if not yours:
        yield unknown("Slurm keeps no accounts here, or does not tell yours")
    elif wrong:
        yield failed(f"no {', '.join(wrong)} among yours: {', '.join(yours)}. Set slurm_account")
    else:
        yield ok(f"{', '.join(sorted(wanted)) or 'your default one'}; yours: {', '.join(yours)}")


def check_ranks(site: Site) -> Iterator[Finding]:
    """Whether the processes of each training can share its minibatches."""
    many = [one for one in site.requests if one.rule in TRAININGS and one.n_ranks > 1]
    if site.config is None or not many:
        return
    wrong = []
    for one in many:
        parts = getattr(site.config, TRAININGS[one.rule]).micro_batches
        if parts % one.n_ranks:
            wrong.append(
                f"{one.rule}: {one.n_ranks} processes, one for each GPU, cannot share {parts} "
                f"micro_batches. Set `{TRAININGS[one.rule]}.micro_batches: {one.n_ranks}`"
            )
    yield from map(failed, wrong)
    if not wrong:
        yield ok("micro_batches are multiples of the numbers of GPUs")


def check_trial(site: Site) -> Iterator[Finding]:
    """Whether Slurm itself would take each kind of job. It is asked, nothing is submitted."""
    fit = [
        one
        for one in site.requests
        if any(partition.usable for partition in find_partitions(site.partitions, one.partition))
        and not find_best(site, one, find_shortage)  # said already
        and not find_best(site, one, find_excess)
    ]
    kinds: dict[tuple[object, ...], list[Request]] = defaultdict(list)
    for one in fit:
        kinds[one._replace(rule="", minutes=0, memory=0)].append(one)
    refused = 0
    for alike in kinds.values():
        largest = alike[0]._replace(
            minutes=max(one.minutes for one in alike), memory=max(one.memory for one in alike)
        )
        if reason := try_submission(largest.options):
            refused += 1
            rules = show_some([one.rule for one in alike], 4)
            told = f"jobs of {rules} ({' '.join(largest.options)}): {show(reason)}"
            if PASSING.search(reason):
                yield unknown(f"Slurm cannot say now about {told}")
            else:
                cure = "Set what it names under default-resources or set-resources"
                yield failed(f"Slurm refuses {told}. {cure}")
    if kinds and not refused:
        yield ok(f"Slurm would take jobs of all {len(kinds)} kinds (sbatch --test-only)")


def try_submission(options: Sequence[str]) -> str | None:
    """Why Slurm would not take a job; None where it would."""
    command = ["sbatch", "--test-only", *options, "--wrap=true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip().splitlines() or ["no reason"])[-1] if done.returncode else None
