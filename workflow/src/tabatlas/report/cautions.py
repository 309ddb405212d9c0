"""What a reader should know before trusting a number: losses in the data, gaps in the test."""

from collections.abc import Iterator, Mapping
from typing import Any

from tabatlas.report.integration import examine_integration
from tabatlas.report.perturbation import examine_perturbation
from tabatlas.report.settings import ReportSettings
from tabatlas.report.wording import format_count, format_noun, format_percent


def find_cautions(summary: Mapping[str, Any], settings: ReportSettings) -> list[dict[str, str]]:
    """Cautions in the order of the page, each {"section", "text"}."""
    cautions = [
        {"section": section, "text": f"{dataset['dataset_id']}: {text}"}
        for section, examine in (("data", examine_source), ("qc", examine_samples))
        for dataset in summary["datasets"]
        for text in examine(dataset, settings)
    ]
    if summary["split"]["unit"] in ("batches", "cells"):
        text = "Test cells come from donors that also train: new donors may be harder."
        cautions.append({"section": "split", "text": text})
    cautions += [{"section": "test", "text": text} for text in examine_test(summary["test"])]
    for section, examine in (
        ("integration", examine_integration),
        ("perturbation", examine_perturbation),
        ("explanation", examine_explanation),
    ):
        cautions += [{"section": section, "text": text} for text in examine(summary[section])]
    return cautions


def examine_source(dataset: Mapping[str, Any], settings: ReportSettings) -> Iterator[str]:
    """Genes, counts and labels of one dataset that were lost."""
    mapped = dataset["n_mapped"] / max(dataset["n_genes"], 1)
    if mapped < settings.warn_mapped_below:
        yield f"only {format_percent(mapped)} of its genes have a known Ensembl id."
    lost = dataset["pct_lost_counts"] / 100
    if lost > settings.warn_lost_counts_above:
        yield f"{format_percent(lost)} of its counts lie in genes outside the atlas's list."
    if dataset["unmapped_labels"]:
        n_labels = len(dataset["unmapped_labels"])
        yield f"{format_noun(n_labels, 'label')} without a Cell Ontology term."


def examine_samples(dataset: Mapping[str, Any], settings: ReportSettings) -> Iterator[str]:
    """Samples of one dataset that lost most of their cells."""
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


def examine_explanation(explanation: Mapping[str, Any]) -> Iterator[str]:
    """Types without a gene of their own, and cells that are no test cells."""
    if explanation["part"] != "test":
        yield f"Masks are those of {explanation['part']} cells: no labeled test cell is there."
    explained = [row for row in explanation["types"] if row["stability"]]
    unstable = [row["label"] for row in explained if not row["stable"]]
    if unstable:
        yield (
            f"Important genes of {format_noun(len(unstable), 'type')} of "
            f"{format_count(len(explained))} change with the seed or are those of other types "
            "too, so none of them is drawn: "
            f"{', '.join(unstable)}."
        )
