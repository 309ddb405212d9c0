"""Read the scores and tables of all stages and write the page."""

import json as jsonlib
import logging
from pathlib import Path
from typing import Annotated, Any

from tabatlas.errors import InputError
from tabatlas.provenance import write_json, write_text
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
        pretrain_metrics=read_rows(pretrain_metrics),
        pretrain_scores=read_table(pretrain_scores),
        finetune_metrics=read_rows(finetune_metrics),
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
    """One JSON object."""
    return parse_object(read_source(path), str(path))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file."""
    lines = enumerate(read_source(path).splitlines(), start=1)
    return [parse_object(line, f"{path}:{number}") for number, line in lines if line.strip()]


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a parquet table."""
    return read_parquet(path).to_dict("list")


def read_source(path: Path) -> str:
    """Text of an input; raises `InputError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Run its stage again.") from None


def parse_object(text: str, place: str) -> dict[str, Any]:
    """One JSON object; raises `InputError` with its place for anything else."""
    try:
        value = jsonlib.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: not valid JSON ({error}). Run its stage again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: holds no JSON object. Run its stage again.")
    return value
