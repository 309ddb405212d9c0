"""Scatter plots of cells: groups with their hues, dots as a few long paths."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tabatlas.report.wording import format_noun

N_HUES = 8  # more cannot be told apart
REST = "rest"
SIZE, MARGIN = 240, 6  # pixels
N_LAYERS = 12


@dataclass(frozen=True)
class Group:
    """Cells that share a hue: its class, the name of the group, its labels, its number of cells."""

    kind: str
    name: str
    labels: frozenset[str]
    n_cells: int


@dataclass(frozen=True)
class Dots:
    """Dots of one group in one layer; `path` draws them all."""

    group: Group
    path: str


def rank_groups(labels: Sequence[str], word: str) -> list[Group]:
    """The commonest labels, each in a hue of its own, and all others together in gray.

    `word` names what a label is: "type", "batch".
    """
    counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    own = counts if len(counts) <= N_HUES else counts[: N_HUES - 1]
    groups = [
        Group(f"hue{number}", label, frozenset([label]), n) for number, (label, n) in enumerate(own)
    ]
    rest = counts[len(own) :]
    if rest:
        name = format_noun(len(rest), f"rarer {word}", f"rarer {pluralize(word)}")
        n_cells = sum(n for _, n in rest)
        groups.append(Group(REST, name, frozenset(label for label, _ in rest), n_cells))
    return groups


def pluralize(word: str) -> str:
    """The plural of `type` and `batch`."""
    return word + ("es" if word.endswith("ch") else "s")


def draw_scatter(
    x_n: Sequence[float], y_n: Sequence[float], labels: Sequence[str], groups: Sequence[Group]
) -> list[Dots]:
    """Dots of all cells in layers, every layer with cells of every group.

    Were the groups drawn one after the other, the last would hide the rest, and batches that mix
    would look apart.
    """
    place = place_dots(x_n, y_n)
    group_of = {label: group for group in groups for label in group.labels}
    drawn = []
    for layer in range(N_LAYERS):
        paths: dict[str, list[str]] = {}
        for cell in range(layer, len(labels), N_LAYERS):
            paths.setdefault(group_of[labels[cell]].kind, []).append(place[cell])
        drawn += [Dots(one, "".join(paths[one.kind])) for one in groups if one.kind in paths]
    return drawn


def place_dots(x_n: Sequence[float], y_n: Sequence[float]) -> list[str]:
    """The path of every dot; each axis fills the picture, for distances in a UMAP mean little."""
    columns, rows = scale_axis(x_n), scale_axis(y_n)
    return [f"M{x:.1f} {SIZE - y:.1f}h0" for x, y in zip(columns, rows, strict=True)]


def scale_axis(values: Sequence[float]) -> list[float]:
    """Values in pixels, from margin to margin."""
    low, high = min(values, default=0), max(values, default=0)
    scale = (SIZE - 2 * MARGIN) / ((high - low) or 1)
    return [MARGIN + scale * (value - low) for value in values]
