# The configuration, names of folders, and input functions.

import json
import re
import sys
from pathlib import Path

from tabatlas.config import check_keys, load_config
from tabatlas.doctor.examination import admit
from tabatlas.errors import TabatlasError
from tabatlas.names import MODEL_STAGES
from tabatlas.provenance import stage_digest
from tabatlas.slurm import cancel_orphans


def fail(error):
    """End snakemake with one message."""
    sys.stderr.write(f"tabatlas: error: {error}\n")
    sys.exit(error.exit_code)


# Only where the command line names no config: no value of the demo may reach another atlas.
if not workflow.config_settings.configfiles and not {"atlas", "datasets"} & set(config):

    configfile: workflow.source_path("../../config/demo.yaml")


try:
    for path in workflow.configfiles:
        check_keys(path)
    CONFIG, DATASETS = load_config(config)
except TabatlasError as error:
    fail(error)

ATLAS = CONFIG.atlas
RESULTS = f"results/{ATLAS}"
LOGS = f"logs/{ATLAS}"
BENCHMARKS = f"benchmarks/{ATLAS}"

MODEL_FILES = (
    "model.safetensors",
    "config.json",
    "genes.parquet",
    "metrics.jsonl",
    "scores.json",
)
CLASSIFIER_FILES = ("labels.json", "calibration.json", "predictions.parquet")
PERTURB_FILES = (
    "model.safetensors",
    "heads.json",
    "predictions.parquet",
    "scores.json",
)
SCREENS = {row.dataset_id: row for row in CONFIG.perturb.datasets}
# Classifiers besides the one of `finetune`, each by its seed.
REPLICATE_SEEDS = range(
    CONFIG.finetune.seed + 1, CONFIG.finetune.seed + 1 + CONFIG.explain.replicates
)

LARGEST_LIBRARY = CONFIG.qc.doublet_max_cells  # the most that qc holds at once


# Once, before the first job: neither in a dry run nor in the Snakemakes inside of jobs.
onstart:
    if not workflow.local_exec:
        try:
            admit(CONFIG, sys.argv[1:])
            cancel_orphans(Path.cwd(), set(submitted_jobs()))
        except TabatlasError as error:
            fail(error)


wildcard_constraints:
    dataset="|".join(map(re.escape, DATASETS)),
    screen="|".join(map(re.escape, SCREENS)) or "none",
    stage="[a-z]+",
    seed="[0-9]+",


localrules:
    all,
    settings,
    dataset_settings,


def for_all(pattern):
    """One path per dataset."""
    return expand(f"{RESULTS}/{pattern}", dataset=DATASETS)


def for_screens(pattern):
    """One path per screen outside the atlas."""
    return expand(f"{RESULTS}/{pattern}", screen=SCREENS)


def stage_json(wildcards):
    """Settings of one stage, as JSON."""
    return json.dumps(CONFIG.stage(wildcards.stage), indent=1, sort_keys=True)


def dataset_json(wildcards):
    """The row of one dataset, as JSON."""
    return DATASETS[wildcards.dataset].model_dump_json(indent=1)


def source_file(wildcards):
    """The file of a dataset, where it is on this machine or simulated."""
    row = DATASETS[wildcards.dataset]
    if row.simulated:
        return f"{RESULTS}/simulate/{row.simulated}.h5ad"
    return [] if row.is_remote else row.path


def screen_file(wildcards):
    """The file of a screen outside the atlas, where it is on this machine."""
    row = SCREENS[wildcards.screen]
    return [] if row.is_remote else row.path


def gene_list(genes):
    """The file behind a list of genes, so that an edit of it reruns what uses it."""
    return [] if genes in ("protein_coding", "all", "hvg") else genes


def marker_file(wildcards):
    """The table of known markers, where one is named; simulated for the demo."""
    if CONFIG.explain.simulated:
        return f"{RESULTS}/simulate/{CONFIG.explain.simulated}.markers.tsv"
    return CONFIG.explain.markers or []


def folder_of(path):
    """The folder of a path, as the commands take it."""
    return path.rpartition("/")[0]


def input_folder(name):
    """A function that gives the folder of the first file of the input of that name."""

    def find_folder(wildcards, input):
        return folder_of(getattr(input, name)[0])

    return find_folder


def output_folder(wildcards, output):
    """Where the first output is: a model, or what names the current one of several versions."""
    return folder_of(output[0])


def replicate_folders(wildcards, input):
    """Where the classifiers of other seeds are."""
    return [folder_of(path) for path in input.replicates]


def soma_folder(wildcards, output):
    """Where experiments stand, beside the file that names the current one."""
    return f"{folder_of(output.registry)}/soma"


def shards_folder(wildcards, output):
    """Where training caches stand, beside the file that names the current one."""
    return f"{folder_of(output.pack)}/shards"
