"""Predictions of every method for the perturbations of a test set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tabatlas.perturb.baselines import (
    predict_additive,
    predict_linear,
    predict_mean,
    predict_scaled_mean,
)
from tabatlas.perturb.heads import Embedding, fit_head, predict_effect
from tabatlas.perturb.pseudobulk import Moments, known_effects
from tabatlas.perturb.screens import split_targets
from tabatlas.perturb.sets import DOUBLES, SINGLES, Part, PerturbationSet

NO_CHANGE, MEAN, ADDITIVE, CENTERED = "no_change", "mean", "additive", "centered_additive"
SCALED_MEAN = "scaled_mean"
LINEAR, ZERO_SHOT = "linear", "zero_shot"
RANDOM, PCA, HEAD = "ridge_random", "ridge_pca", "ridge_pretrained"
CEILING = "ceiling"
METHODS = (NO_CHANGE, MEAN, SCALED_MEAN, ADDITIVE, CENTERED, LINEAR, ZERO_SHOT, RANDOM, PCA, HEAD)
# Methods that say nothing, or nothing of their own, of a test set.
IDLE = {
    SINGLES: dict.fromkeys((ADDITIVE, CENTERED), "a single perturbation has no parts to add")
    | {SCALED_MEAN: "a single perturbation has one target: it is the mean effect"},
    DOUBLES: dict.fromkeys(
        (RANDOM, PCA, HEAD), "every single is known: the head is the centered additive"
    ),
}
LEAST_TARGETS = 3  # training targets in the panel that the linear model needs


@dataclass(frozen=True)
class Knowledge:
    """What the methods know of a unit's genes besides its cells.

    `places` is the place of each target among the unit's genes; `embeddings` those of each method,
    one or, where they are drawn, several; `zero_shot` effects by perturbation, or why there are
    none.
    """

    places: Mapping[str, int]
    embeddings: Mapping[str, Sequence[Embedding]]
    zero_shot: Mapping[str, np.ndarray] | str
    n_components: int
    ridge: float


@dataclass(frozen=True)
class Predictions:
    """Effects (p, g) by method, several where its embeddings are drawn, and why some are absent.

    `reference_pg` is the mean of the known singles' means, by which singles are centered.
    """

    effects: dict[str, list[np.ndarray]]
    reference_pg: np.ndarray
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> str:
        """The method that is the head's: what the bundle predicts."""
        return HEAD if HEAD in self.effects else CENTERED


def predict_set(
    test_set: PerturbationSet, moments: Mapping[str, Moments], knowledge: Knowledge
) -> Predictions:
    """Predict every part of a test set by every method that can."""
    not_run = dict(IDLE.get(test_set.name, {}))
    if isinstance(knowledge.zero_shot, str):
        not_run[ZERO_SHOT] = knowledge.zero_shot
    parts, references = [], []
    for part in test_set.parts:
        known = known_effects(moments, list(part.train))
        mean_tg = np.stack([moments[one].mean() for one in part.train])
        references.append(np.tile(mean_tg.mean(axis=0), (len(part.test), 1)))
        linear = predict_by_panel(part, known, mean_tg, knowledge)
        if isinstance(linear, str):
            not_run[LINEAR] = linear
        parts.append(predict_part(part, known, knowledge) | {LINEAR: [linear]})
    effects = {
        method: join_parts([one[method] for one in parts])
        for method in METHODS
        if method not in not_run
    }
    return Predictions(effects, np.concatenate(references), not_run)


def join_parts(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Each draw's predictions of all parts, one below the other."""
    return [np.concatenate(draws) for draws in zip(*parts, strict=True)]


def predict_part(
    part: Part, known: np.ndarray, knowledge: Knowledge
) -> dict[str, list[np.ndarray]]:
    """Effects by all methods but the linear one, from the known singles' effects (t, g)."""
    effects = {
        NO_CHANGE: [np.zeros((len(part.test), known.shape[1]))],
        MEAN: [predict_mean(known, len(part.test))],
        SCALED_MEAN: [predict_scaled_mean(known, part.test)],
        ADDITIVE: [predict_additive(part.train, known, part.test, centered=False)],
        CENTERED: [predict_additive(part.train, known, part.test, centered=True)],
    }
    if not isinstance(knowledge.zero_shot, str):
        effects[ZERO_SHOT] = [np.stack([knowledge.zero_shot[one] for one in part.test])]
    for method, embeddings in knowledge.embeddings.items():
        effects[method] = [predict_head(part, known, one) for one in embeddings]
    return effects


def predict_head(part: Part, known: np.ndarray, embedding: Embedding) -> np.ndarray:
    """Effects (p, g) by the head with one kind of gene embedding."""
    head = fit_head(part.train, known, embedding)
    return np.stack(
        [predict_effect(head, split_targets(one), embedding.vectors) for one in part.test]
    )


def predict_by_panel(
    part: Part, known: np.ndarray, mean_tg: np.ndarray, knowledge: Knowledge
) -> np.ndarray | str:
    """Effects (p, g) by the linear model, or why it cannot be fitted."""
    places = knowledge.places
    train = [places.get(one, -1) for one in part.train]
    n_found = sum(place >= 0 for place in train)
    if n_found < LEAST_TARGETS:
        return (
            f"{n_found} of {len(train)} known targets are among the measured genes; "
            f"{LEAST_TARGETS} are needed"
        )
    test = [[places[one] for one in split_targets(test) if one in places] for test in part.test]
    return predict_linear(mean_tg, known, train, test, knowledge.n_components, knowledge.ridge)
