"""What a reader should know before trusting a number: losses in the data, gaps in the test."""

from collections.abc import Iterator, Mapping
from typing import Any

from tabatlas.report.settings import ReportSettings
from tabatlas.report.wording import format_count, format_noun, format_percent


def find_cautions(summary: Mapping[str, Any], settings: ReportSettings) -> list[dict[str, str]]:
    """Cautions in the order of the page, each {"section", "text"}."""
    cautions = [
        {"section": "data", "text": f"{dataset['dataset_id']}: {text}"}
        for dataset in summary["datasets"]
        for text in examine_dataset(dataset, settings)
    ]
    cautions += [{"section": "split", "text": text} for text in summary["split"]["notes"]]
    for section in ("pretraining", "finetuning"):
        n_lost = sum(summary[section][name]["n_lost"] for name in ("train", "validation"))
        if n_lost:
            text = f"{format_noun(n_lost, 'loss', 'losses')} in {section} not finite."
            cautions.append({"section": section, "text": text})
    cautions += [{"section": "test", "text": text} for text in examine_test(summary["test"])]
    return cautions


def examine_dataset(dataset: Mapping[str, Any], settings: ReportSettings) -> Iterator[str]:
    """Losses of one dataset that pass the limits of the settings."""
    mapped = dataset["n_mapped"] / max(dataset["n_genes"], 1)
    if mapped < settings.warn_mapped_below:
        yield f"only {format_percent(mapped)} of its genes have a known Ensembl id."
    lost = dataset["pct_lost_counts"] / 100
    if lost > settings.warn_lost_counts_above:
        yield f"{format_percent(lost)} of its counts lie in genes outside the atlas's list."
    if dataset["unmapped_labels"]:
        n_labels = len(dataset["unmapped_labels"])
        yield f"{format_noun(n_labels, 'label')} without a Cell Ontology term."
    for sample in dataset["samples"]:
        share = sample["n_kept"] / max(sample["n_cells"], 1)
        if share < settings.warn_kept_below:
            yield (
                f"sample {sample['batch']} kept {format_count(sample['n_kept'])} of "
                f"{format_noun(sample['n_cells'], 'cell')} ({format_percent(share)})."
            )


def examine_test(test: Mapping[str, Any]) -> Iterator[str]:
    """Limits of the test."""
    if test["n_unseen_test_cells"]:
        n_cells = format_noun(test["n_unseen_test_cells"], "labelled test cell")
        yield f"{n_cells} of types absent from training left out of the scores."
    if test["methods"] and test["bootstrap_unit"] == "cells":
        yield (
            "Intervals are over cells, because too few donors are tested: cells of one donor are "
            "alike, so the true uncertainty is larger."
        )
    yield from test["notes"]
