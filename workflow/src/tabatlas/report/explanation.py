"""The verdict on the masks: whether they repeat, find markers, and matter."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabatlas.report.states import GOOD, LEVEL, POOR, UNKNOWN, claim
from tabatlas.report.wording import format_count, format_percent, format_score

# Half of two lists of equal length shared is a Jaccard index of a third.
HALF_SHARED = 1 / 3
SURE = 0.05
# Own choice: a tenth of the genes is a selection; of half of them it can't be said.
SPARSE, DENSE = 0.1, 0.5

Table = Mapping[str, Any]


def judge_explanation(explanation: Table) -> list[dict[str, str]]:
    """Claims about the masks, good and bad."""
    found = [*judge_stability(explanation), *judge_markers(explanation)]
    found += judge_deletion(explanation["deletion"]["mean"])
    found += judge_selection(explanation["selection"])
    return [claim("explanation", state, text) for state, text in found]


def judge_stability(explanation: Table) -> Iterator[tuple[str, str]]:
    """Whether classifiers that differ in their seed look at the same genes."""
    stability = explanation["stability"]
    if stability is None:
        yield UNKNOWN, "No cell is named rightly by every classifier: stability is not known."
        return
    weighted = stability["weighted"]
    jaccard = weighted["jaccard"]
    values = (
        f"mean Jaccard index {format_score(jaccard)}, with other types' genes "
        f"{format_score(weighted['jaccard_other_types'])}, by chance "
        f"{format_score(weighted['jaccard_chance'])}"
    )
    if jaccard >= HALF_SHARED:
        yield GOOD, f"Masks name mostly the same genes whatever the seed: {values}."
    else:
        yield POOR, f"Most genes that the masks put first change with the seed: {values}."


def judge_markers(explanation: Table) -> Iterator[tuple[str, str]]:
    """Whether known markers are found better than by the peer, and than by chance."""
    overall = (explanation["markers"] or {}).get("overall")
    if overall is None:
        yield UNKNOWN, "No known markers were given: nobody knows whether masks agree with them."
        return
    ours, peer = (overall["methods"][name] for name in ("weighted", "logistic_regression"))
    change = overall["differences"]["logistic_regression"]
    values = f"AUPRC {format_score(ours['auprc'])} against {format_score(peer['auprc'])}"
    if change["low"] is None or change["low"] <= 0 <= change["high"]:
        word = "more" if change["value"] > 0 else "less"
        yield (
            LEVEL,
            f"Masks agree with known markers {word} than logistic regression does, not "
            f"proven: {values}.",
        )
    elif change["low"] > 0:
        yield GOOD, f"Masks agree with known markers more than logistic regression does: {values}."
    else:
        yield POOR, f"Masks agree with known markers less than logistic regression does: {values}."
    matched = f"{format_score(ours['matched'])}; p = {format_score(ours['matched_share'])}"
    values = f"AUPRC {format_score(ours['auprc'])} against {matched}"
    if ours["auprc"] > ours["matched"] and ours["matched_share"] <= SURE:
        yield GOOD, f"Masks find more markers than random genes of equal expression: {values}."
    else:
        yield POOR, f"Masks find no more markers than random genes of equal expression: {values}."


def judge_deletion(mean: Table) -> Iterator[tuple[str, str]]:
    """Whether the model needs the genes, and whether it needs the peer's genes more."""
    values = f"{format_score(mean['tabnet'])} against {format_score(mean['control'])}"
    is_more = mean["tabnet_over_control"]["low"] > 0
    yield (
        GOOD if is_more else POOR,
        f"Hiding the genes that masks put first costs {'more' if is_more else 'no more'} "
        f"confidence than hiding random genes of equal expression: {values}.",
    )
    if mean["tabnet_over_logistic_regression"]["high"] < 0:
        values = f"{format_score(mean['logistic_regression'])} against "
        values += format_score(mean["tabnet"])
        yield (
            POOR,
            "Hiding the genes that logistic regression puts first costs TabNet even more: "
            f"{values}; masks are not the best account of what it uses.",
        )


def judge_selection(selection: Table) -> Iterator[tuple[str, str]]:
    """Whether masks select at all, by the share of a cell's measured genes."""
    share = selection["n_selected"] / max(selection["n_measured"], 1)
    silent = 1 - selection["n_expressed"] / max(selection["n_selected"], 1)
    values = (
        f"{format_count(round(selection['n_selected']))} of "
        f"{format_count(round(selection['n_measured']))} measured genes per cell "
        f"({format_percent(share)}), {format_percent(silent)} of them not expressed"
    )
    if share <= SPARSE:
        yield GOOD, f"Masks are sparse: {values}."
    elif share <= DENSE:
        yield LEVEL, f"Masks select loosely: {values}."
    else:
        yield POOR, f"Masks are hardly a selection: {values}."


def trace_deletion(curve: Sequence[Table], name: str) -> list[list[float]]:
    """Points (hidden genes, loss of probability) of one method."""
    return [[row["n_hidden"], round(row[name], 3)] for row in curve]
