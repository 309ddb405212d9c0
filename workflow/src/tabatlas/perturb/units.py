"""Everything about one unit: its moments, what is known of its genes, its sets and its head."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.genes import map_names
from tabatlas.perturb.embeddings import (
    draw_embeddings,
    embed_by_decoder,
    embed_by_pca,
    name_targets,
)
from tabatlas.perturb.evaluate import KERNEL_RIDGE, score_set
from tabatlas.perturb.heads import Embedding, Head, fit_head
from tabatlas.perturb.predictions import HEAD, PCA, RANDOM, Knowledge, predict_set
from tabatlas.perturb.pseudobulk import KNOWN, TRUTH, Moments, known_effects, measure_unit
from tabatlas.perturb.records import describe_head, tabulate_effects
from tabatlas.perturb.screens import CONTROL_ID, Unit, split_targets
from tabatlas.perturb.sets import LEAST_TRAIN, SINGLES, PerturbationSet, make_sets
from tabatlas.perturb.settings import PerturbSettings
from tabatlas.perturb.zeroshot import (
    ACTIVATED,
    Network,
    find_direction,
    find_high_values,
    find_places,
    predict_zero_shot,
    read_controls,
)
from tabatlas.scores.perturbation import DECIDING
from tabatlas.simulate.draws import named_generator
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.decoder import Decoder
from tabatlas.tabnet.encoder import Encoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Genome:
    """What all units share: the network and its genes' embeddings (genes, d)."""

    network: Network
    pretrained_gd: np.ndarray
    pca_gd: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What was found for a unit, without its cells; no head where it has too few singles.

    `about_head` is the head's entry in `heads.json`, but for its number.
    """

    about: dict[str, Any]
    sets: list[PerturbationSet] = field(default_factory=list)
    tables: list[pd.DataFrame] = field(default_factory=list)
    head: Head | None = None
    about_head: dict[str, Any] | None = None


def prepare_genome(
    encoder: Encoder,
    decoder: Decoder,
    genes: pd.DataFrame,
    source: PackedSource,
    settings: PerturbSettings,
) -> Genome:
    """Embeddings and activated values of all genes, from the network and training cells alone."""
    n_cells = settings.n_sample_cells
    high_g = find_high_values(source, n_cells, settings.activation_quantile)
    pca_gd = embed_by_pca(source, decoder, n_cells, settings.seed)
    network = Network(encoder, decoder, pd.Index(genes[names.FEATURE_ID]), high_g)
    return Genome(network, embed_by_decoder(decoder), pca_gd)


def predict_unit(unit: Unit, genome: Genome, settings: PerturbSettings) -> Outcome:
    """Predict and score all test sets of a unit."""
    rng = named_generator(settings.seed, "halves", *unit.name)
    moments, half_n = measure_unit(unit, settings.min_cells, rng)
    about = describe_unit(unit, moments)
    measured = [one for one in moments if one != CONTROL_ID]
    singles = [one for one in measured if len(split_targets(one)) == 1]
    if CONTROL_ID not in moments or len(singles) < LEAST_TRAIN:
        about["skipped"] = (
            f"{about['n_controls']} control cells and {len(singles)} single perturbations with "
            f"{settings.min_cells} cells; {settings.min_cells} and {LEAST_TRAIN} are needed"
        )
        logger.warning("%s, %s: %s", *unit.name, about["skipped"])
        return Outcome(about)
    sets = make_sets(unit, measured)
    tested = [perturbation for one in sets for perturbation in one.test]
    knowledge = gather_knowledge(unit, genome, half_n, tested, settings)
    about |= describe_targets(unit, genome, knowledge)
    scored = [score_one(unit, one, moments, knowledge, settings.seed) for one in sets]
    about["sets"] = [scores for scores, _ in scored]
    embedding = knowledge.embeddings[HEAD][0]
    head = fit_head(singles, known_effects(moments, singles), embedding)
    method = next((one["head"] for one in about["sets"] if one["name"] == SINGLES), KERNEL_RIDGE)
    tables = [table for _, table in scored]
    return Outcome(about, sets, tables, head, describe_head(head, unit, method))


def gather_knowledge(
    unit: Unit,
    genome: Genome,
    half_n: np.ndarray,
    perturbations: list[str],
    settings: PerturbSettings,
) -> Knowledge:
    """Where the targets lie, their embeddings, and what the network says of each perturbation."""
    targets = sorted({target for one in unit.folds for target in split_targets(one)})
    feature_ids = map_names(pd.Index(targets), unit.organism).feature_id
    places = find_places(targets, feature_ids, genome.network.genes)
    controls = np.flatnonzero((unit.id_n == CONTROL_ID) & (half_n == KNOWN))
    return Knowledge(
        find_places(targets, feature_ids, unit.genes),
        embed_targets(unit, genome, places, settings),
        shoot_unit(unit, genome.network, controls, perturbations, places, settings),
        settings.n_components,
        settings.linear_ridge,
    )


def score_one(
    unit: Unit,
    test_set: PerturbationSet,
    moments: Mapping[str, Moments],
    knowledge: Knowledge,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores of a test set, and its true and predicted effects.

    The targets' own genes are not scored: that they change is known.
    """
    scored_g = np.ones(len(unit.genes), dtype=bool)
    scored_g[list(knowledge.places.values())] = False
    predictions = predict_set(test_set, moments, knowledge)
    rng = named_generator(seed, "intervals", *unit.name, test_set.name)
    scores = score_set(test_set, predictions, moments, scored_g, rng)
    control_g = moments[CONTROL_ID].mean(TRUTH)
    true_pg = np.stack([moments[one].mean() - control_g for one in test_set.test])
    own_pg = predictions.effects[predictions.own][0]
    logger.info(
        "%s, %s, %d %s: %s %.3f of 1 between constant and ceiling",
        *(*unit.name, len(test_set.test), test_set.name, scores["head"]),
        rescaled(scores, predictions.own),
    )
    return scores, tabulate_effects(unit, test_set, scored_g, true_pg, own_pg)


def rescaled(scores: Mapping[str, Any], method: str) -> float:
    """The deciding metric of a method between the constant baseline and the ceiling."""
    scale = scores["methods"][method][DECIDING]["rescaled"]
    return float("nan") if scale is None else scale["value"]


def describe_targets(unit: Unit, genome: Genome, knowledge: Knowledge) -> dict[str, Any]:
    """Of how many targets and genes something is known."""
    targets = {target for one in unit.folds for target in split_targets(one)}
    embedded = knowledge.embeddings[HEAD][0].vectors
    return {
        "n_targets_measured": len(knowledge.places),
        "targets_without_embedding": sorted(targets - set(embedded)),
        "n_genes_in_encoder": int(unit.genes.isin(genome.network.genes).sum()),
    }


def describe_unit(unit: Unit, moments: Mapping[str, Moments]) -> dict[str, Any]:
    """What a unit consists of."""
    targets = {one: len(split_targets(one)) for one in unit.folds}
    kept = [n for one, n in targets.items() if one in moments]
    return {
        "screen": unit.screen,
        "cell_line": unit.cell_line,
        "origin": unit.origin,
        "expression": unit.expression,
        "strategy": unit.strategy,
        "direction": find_direction(unit.strategy),
        "n_cells": len(unit.id_n),
        "n_controls": int((unit.id_n == CONTROL_ID).sum()),
        "n_genes": len(unit.genes),
        "n_singles": kept.count(1),
        "n_doubles": kept.count(2),
        "n_larger": sum(n > 2 for n in kept),
        "n_too_few_cells": len(targets) - len(kept),
        "n_targets": len({target for one in unit.folds for target in split_targets(one)}),
        "n_targets_measured": None,
        "n_genes_in_encoder": None,
        "targets_without_embedding": [],
        "sets": [],
        "skipped": None,
    }


def embed_targets(
    unit: Unit, genome: Genome, places: dict[str, int], settings: PerturbSettings
) -> dict[str, list[Embedding]]:
    """Embeddings of the targets by method; `places` are those among the network's genes."""
    rng = named_generator(settings.seed, "embeddings", *unit.name)
    width = genome.pretrained_gd.shape[1]
    return {
        RANDOM: draw_embeddings(sorted(places), width, settings.n_random, rng),
        PCA: [name_targets(genome.pca_gd, places)],
        HEAD: [name_targets(genome.pretrained_gd, places)],
    }


def shoot_unit(
    unit: Unit,
    network: Network,
    controls: np.ndarray,
    perturbations: list[str],
    places: dict[str, int],
    settings: PerturbSettings,
) -> dict[str, np.ndarray] | str:
    """Zero-shot effects on the unit's genes by perturbation, or why there are none.

    A target that the network does not know, and a gene that is not among its own, change nothing.
    """
    direction = find_direction(unit.strategy)
    if direction is None:
        return f"the strategy `{unit.strategy}` names neither activation nor knock-out"
    rng = named_generator(settings.seed, "zero-shot", *unit.name)
    rows = np.sort(rng.permutation(controls)[: settings.n_control_cells])
    cells = read_controls(network, unit.genes, unit.read(rows))
    own = network.genes.get_indexer(unit.genes)
    effects = {}
    for perturbation in perturbations:
        known = [places[one] for one in split_targets(perturbation) if one in places]
        shot = known if direction != ACTIVATED else drop_unseen(known, network.high_g)
        effect_g = predict_zero_shot(network, cells, shot, direction, settings)
        effects[perturbation] = np.where(own >= 0, effect_g[own], 0.0)
    return effects


def drop_unseen(places: list[int], high_g: np.ndarray) -> list[int]:
    """Genes that some training cell expresses: others have no value to be activated to."""
    return [place for place in places if np.isfinite(high_g[place])]
