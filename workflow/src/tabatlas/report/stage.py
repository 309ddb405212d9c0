"""Read the scores and tables of all stages and write the page."""

import logging
from pathlib import Path
from typing import Annotated, Any

from tabatlas.errors import InputError
from tabatlas.provenance import read_json, read_rows, write_json, write_text
from tabatlas.report.facts import gather_facts
from tabatlas.report.page import render_page
from tabatlas.report.settings import ReportSettings
from tabatlas.report.summary import StageTables, summarize_atlas
from tabatlas.tables import read_table as read_parquet

logger = logging.getLogger(__name__)


def run(
    fetch: Annotated[list[Path], "fetch/DATASET.json of every dataset"],
    qc: Annotated[list[Path], "qc/DATASET.json of every dataset"],
    normalize: Annotated[list[Path], "normalize/DATASET.json of every dataset"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/split.json"],
    pretrain_metrics: Annotated[Path, "pretrain/metrics.jsonl"],
    pretrain_scores: Annotated[Path, "pretrain/scores.json"],
    finetune_metrics: Annotated[Path, "finetune/metrics.jsonl"],
    finetune_scores: Annotated[Path, "finetune/scores.json"],
    integrate_scores: Annotated[Path, "integrate/scores.json"],
    integrate_layout: Annotated[Path, "integrate/layout.parquet"],
    perturb_scores: Annotated[Path, "perturb/scores.json"],
    explain_scores: Annotated[Path, "explain/scores.json"],
    bundle: Annotated[Path, "bundle/bundle.json"],
    benchmarks: Annotated[Path, "folder of Snakemake's benchmark files"],
    settings: Annotated[Path, "settings/report.json"],
    html: Annotated[Path, "page to write"],
    json: Annotated[Path, "JSON to write: every number of the page that two builds share"],
    run: Annotated[Path, "JSON to write: host, times, memory, installed versions"],
) -> None:
    """Write one self-contained page: how good the model is, and what it was made of."""
    tables = StageTables(
        fetch=[read_table(path) for path in fetch],
        qc=[read_table(path) for path in qc],
        normalize=[read_table(path) for path in normalize],
        manifest=read_table(manifest),
        split=read_table(split),
        pretrain_metrics=read_epochs(pretrain_metrics),
        pretrain_scores=read_table(pretrain_scores),
        finetune_metrics=read_epochs(finetune_metrics),
        finetune_scores=read_table(finetune_scores),
        integrate_scores=read_table(integrate_scores),
        integrate_layout=read_columns(integrate_layout),
        perturb_scores=read_table(perturb_scores),
        explain_scores=read_table(explain_scores),
        bundle=read_table(bundle),
    )
    summary = summarize_atlas(tables, ReportSettings.read(settings))
    facts = gather_facts(benchmarks)
    write_json(summary, json)
    write_json(facts, run)
    write_text(render_page(summary, facts), html)
    logger.info("%s: %s", html, summary["verdict"]["headline"])


def read_table(path: Path) -> dict[str, Any]:
    """One JSON object; raises `InputError` for anything else."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(f"{path}: holds no JSON object. Run its stage again.")
    return table


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` that are about an epoch; those of single steps may be millions."""
    return [row for row in read_rows(path) if "validation_loss" in row]


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a parquet table."""
    return read_parquet(path).to_dict("list")
