"""Programs: by how much each gene departs, in natural log, from the atlas's mean expression.

Every program is a data frame of genes (rows, by symbol) × effects (columns).
"""

import numpy as np
import pandas as pd

from tabatlas.simulate.design import (
    CELL_TYPES,
    INTERACTIONS,
    PERTURBATIONS,
    SINGLES,
    TREE,
    DatasetDesign,
    join_targets,
)
from tabatlas.simulate.draws import named_generator
from tabatlas.simulate.markers import CELL_LINE_MARKERS, MARKERS, MITOCHONDRIAL, MODULES

N_BROAD_MODULES = 4
NARROW, BROAD = 0.08, 0.25  # shares of the genes in a named and in a broad module
DAMAGE = "damage"  # of a dying cell: the cytoplasm leaks, the mitochondria stay
MAX_MODULE_SPREAD = 0.85  # deviation of log expression by all modules together
MAX_BASE = 3.0  # of mean log expression, where the median gene has 0
DISPERSION = 0.15  # typical squared coefficient of variation beyond Poisson and the modules
# Deviation, over genes, of the log fold change of a dataset, a library, a donor, the cell line.
DATASET_SPREAD = 0.25
LIBRARY_SPREAD = 0.15
DONOR_SPREAD = 0.10
CELL_LINE_SPREAD = 0.8


def draw_base(genes: pd.Index, seed: int) -> pd.Series:
    """Mean log expression of each gene: heavy-tailed, organelles high, markers as any gene."""
    rng = named_generator(seed, "base")
    base = pd.Series(np.minimum(rng.normal(0.0, 1.1, len(genes)), 2.0), genes)
    base[MITOCHONDRIAL.split()] = rng.normal(2.6, 0.5, 13)
    for module, mean in {"translation": 2.4, "oxidative phosphorylation": 1.0}.items():
        symbols = MODULES[module].split()
        base[symbols] = rng.normal(mean, 0.6, len(symbols))
    for markers in MARKERS.values():
        symbols = markers.split()
        base[symbols] = rng.normal(-0.5, 0.8, len(symbols))
    return base.clip(upper=MAX_BASE)


def draw_dispersions(genes: pd.Index, seed: int) -> pd.Series:
    """Squared coefficient of variation of each gene that no program explains."""
    rng = named_generator(seed, "dispersion")
    return pd.Series(DISPERSION * rng.lognormal(0, 0.5, len(genes)), genes)


def draw_cell_types(genes: pd.Index, seed: int) -> pd.DataFrame:
    """One column per cell type: the sum along its path in the tree, minus the mean of all types."""
    nodes = {name: draw_node(name, genes, seed) for name in TREE}
    paths = pd.DataFrame({leaf: sum_path(leaf, nodes) for leaf in CELL_TYPES})
    return paths.sub(paths.mean(axis=1), axis=0)


def draw_node(name: str, genes: pd.Index, seed: int) -> pd.Series:
    """What sets a node of the tree apart from its parent."""
    rng, node = named_generator(seed, "tree", name), TREE[name]
    is_changed = rng.random(len(genes)) < node.share
    program = pd.Series(rng.normal(0, node.spread, len(genes)) * is_changed, genes)
    markers = MARKERS[name].split()
    program[markers] = rng.normal(node.marker_rise, 0.3, len(markers))
    return program


def sum_path(leaf: str, nodes: dict[str, pd.Series]) -> pd.Series:
    """Sum of the nodes from the root of the tree to `leaf`."""
    parent = TREE[leaf].parent
    return nodes[leaf] if parent is None else nodes[leaf] + sum_path(parent, nodes)


def draw_modules(genes: pd.Index, seed: int) -> pd.DataFrame:
    """Loadings of the gene modules, named and broad ones, and of the damage of dying cells.

    The broad ones stand for what all of a cell's expression follows, such as size and activation.
    """
    modules = {
        name: draw_module(name, symbols.split(), NARROW, genes, seed)
        for name, symbols in MODULES.items()
    }
    for number in range(1, N_BROAD_MODULES + 1):
        modules[f"broad {number}"] = draw_module(f"broad {number}", [], BROAD, genes, seed)
    loadings = pd.DataFrame(modules)
    spread = np.sqrt(np.square(loadings).sum(axis=1))
    # A gene of many modules would fill whole cells now and then.
    loadings = loadings.div(np.maximum(spread / MAX_MODULE_SPREAD, 1), axis=0)
    return loadings.assign(**{DAMAGE: genes.isin(MITOCHONDRIAL.split()).astype(float)})


def draw_module(
    name: str, symbols: list[str], share: float, genes: pd.Index, seed: int
) -> pd.Series:
    """Loadings of one module: log fold change per standard deviation of its activity.

    It takes a `share` of the genes besides its named ones; a quarter of those go down.
    """
    rng = named_generator(seed, "module", name)
    is_member = rng.random(len(genes)) < share
    sign = np.where(rng.random(len(genes)) < 0.25, -1, 1)
    loading = pd.Series(rng.normal(0.5, 0.15, len(genes)) * sign * is_member, genes)
    loading[symbols] = rng.normal(0.65, 0.15, len(symbols))
    return loading


def draw_batches(design: DatasetDesign, genes: pd.Index, seed: int) -> pd.DataFrame:
    """One column per library: the dataset's program plus the library's own, weaker one."""
    rng = named_generator(seed, "dataset", design.name)
    dataset = rng.normal(0, DATASET_SPREAD, len(genes))
    libraries = {
        batch: dataset
        + named_generator(seed, "library", batch).normal(0, LIBRARY_SPREAD, len(genes))
        for batch in design.batches
    }
    return pd.DataFrame(libraries, genes)


def draw_donors(design: DatasetDesign, genes: pd.Index, seed: int) -> pd.DataFrame:
    """One column per donor; a person in two datasets of a collection has the same program."""
    donors = {
        donor: named_generator(seed, "donor", design.collection, donor).normal(
            0, DONOR_SPREAD, len(genes)
        )
        for donor in design.donors
    }
    return pd.DataFrame(donors, genes)


def draw_cell_line(blood: pd.Series, seed: int) -> pd.Series:
    """Mean log expression in the screen's cell line, near that of blood; its targets are low."""
    rng = named_generator(seed, "cell line")
    base = blood + rng.normal(0, CELL_LINE_SPREAD, len(blood))
    markers, targets = CELL_LINE_MARKERS.split(), list(SINGLES)
    base[markers] += rng.normal(2.0, 0.5, len(markers))
    base[targets] = rng.normal(-1.5, 0.3, len(targets))
    return base.clip(upper=MAX_BASE)


def draw_perturbations(genes: pd.Index, seed: int) -> pd.DataFrame:
    """One column per perturbation; "na", the non-targeting control, is zero.

    A pair is the sum of its singles on their targets; on all other genes its interaction decides.
    """
    programs = draw_response_programs(genes, seed)
    effects = {target: draw_single(target, programs, seed) for target in SINGLES}
    for pair, kind in INTERACTIONS.items():
        effects[join_targets(*pair)] = combine_pair(pair, kind, effects, seed)
    return pd.DataFrame(effects, genes).reindex(columns=list(PERTURBATIONS), fill_value=0.0)


def draw_response_programs(genes: pd.Index, seed: int) -> pd.DataFrame:
    """Six downstream programs of 20 to 60 genes that several perturbations share."""
    programs = {
        number: draw_response(genes, named_generator(seed, "response", str(number)), 20, 60)
        for number in range(6)
    }
    return pd.DataFrame(programs)


def draw_response(genes: pd.Index, rng: np.random.Generator, low: int, high: int) -> pd.Series:
    """Log fold changes of `low` to `high` genes, two thirds of them up, none of them a target."""
    response = pd.Series(0.0, genes)
    responders = rng.choice(genes.difference(list(SINGLES)), rng.integers(low, high + 1), False)
    sign = np.where(rng.random(len(responders)) < 2 / 3, 1, -1)
    response[responders] = sign * rng.normal(1.0, 0.25, len(responders))
    return response


def draw_single(target: str, programs: pd.DataFrame, seed: int) -> pd.Series:
    """A single perturbation: its target up, one or two shared programs, some genes of its own."""
    rng = named_generator(seed, "perturbation", target)
    effect = 0.8 * draw_response(programs.index, rng, 5, 15)
    for number in rng.choice(programs.columns, rng.integers(1, 3), replace=False):
        effect += rng.uniform(0.4, 1.3) * programs[number]
    effect[target] = rng.normal(2.5, 0.3)
    return effect


def combine_pair(
    pair: tuple[str, str], kind: str, effects: dict[str, pd.Series], seed: int
) -> pd.Series:
    """The effect of two perturbations at once."""
    additive = effects[pair[0]] + effects[pair[1]]
    if kind == "neomorphic":
        rng = named_generator(seed, "perturbation", *pair)
        return additive + 1.2 * draw_response(additive.index, rng, 30, 40)
    factor = {"additive": 1.0, "synergistic": 1.7, "suppressive": 0.4}[kind]
    return additive.where(additive.index.isin(pair), factor * additive)
