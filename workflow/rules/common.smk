# Settings, digests and input functions.
# in:  the configuration
# out: results/<atlas>/settings/<stage>.json, one per stage, so that a changed knob reruns its stage

import json
import sys

from tabatlas.config import load_config
from tabatlas.errors import TabatlasError
from tabatlas.provenance import stage_digest

# Only where the command line names no config: no value of the demo may reach another atlas.
if not workflow.config_settings.configfiles:

    configfile: workflow.source_path("../../config/demo.yaml")


try:
    CONFIG, DATASETS = load_config(config)
except TabatlasError as error:
    sys.stderr.write(f"tabatlas: error: {error}\n")
    sys.exit(error.exit_code)

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
# Stages whose settings shape a model; `report` only shows it.
MODEL_STAGES = (
    "fetch",
    "qc",
    "normalize",
    "ingest",
    "split",
    "pack",
    "pretrain",
    "finetune",
    "bundle",
)


wildcard_constraints:
    dataset="|".join(DATASETS),
    stage="[a-z]+",


localrules:
    all,
    settings,
    dataset_settings,


def for_all(pattern):
    """One path per dataset."""
    return expand(RESULTS + "/" + pattern, dataset=DATASETS)


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


def input_mb(wildcards, input, attempt):
    """Memory: a matrix is held decompressed, twice, beside the libraries."""
    return int((1500 + 10 * input.size_mb) * attempt)


rule settings:
    output:
        f"{RESULTS}/settings/{{stage}}.json",
    params:
        json=stage_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q}"


rule dataset_settings:
    output:
        f"{RESULTS}/settings/fetch/{{dataset}}.json",
    params:
        json=dataset_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q}"
