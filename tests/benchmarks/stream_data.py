"""Synthetic cells for stream.py: quick to make, and in what a loader meets like real ones.

About 1,900 of 20,000 genes per cell, gene popularity falling as a power of its rank; of the counts
70 % are 1, 87 % at most 3, 0.03 % beyond 255, as in PBMCs of 10x. A type scales every gene by a
factor of its own. An entry is a pure function of (seed, cell, gene), however many threads draw.
"""

import functools
import sys
from pathlib import Path

import anndata as ad
import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_atlas import Atlas
from synthetic import HUMAN, make_cells, make_experiment
from tabatlas import names
from tabatlas.genes import choose_atlas_genes
from tabatlas.normalize.stage import normalize_cells
from tabatlas.provenance import write_json
from tabatlas.tables import read_table

SEED = 0
LABELS = [f"type{number:02d}" for number in range(48)]
N_DATASETS = 4  # the first half of them sorted by type
N_DONORS = 100
MINIBATCH = 1024
DEPTHS = 5_600 * np.exp(0.35 * np.linspace(-1.5, 1.5, 8))  # molecules per cell


def make_atlas(folder: Path, n_cells: int) -> Atlas:
    """Sources, sealed experiment and split of `n_cells` within a folder; what is there is kept."""
    atlas, type_n = Atlas(folder), order_types(n_cells)
    sources = [folder / "normalize" / f"d{number}.h5ad" for number in range(N_DATASETS)]
    for source, rows in zip(sources, np.array_split(np.arange(n_cells), N_DATASETS), strict=True):
        if not source.with_suffix(".json").exists():
            write_source(source, rows, type_n[rows])
    if not atlas.manifest.exists():
        make_experiment(atlas.manifest.parent, sources)
    if not atlas.cells.exists():
        atlas.run_split(test_fraction=0, validation_fraction=1 / N_DONORS)
    return atlas


def list_sources(atlas: Atlas) -> list[Path]:
    """Normalized h5ads, in the order of their cells."""
    return sorted((atlas.folder / "normalize").glob("*.h5ad"))


def read_train(atlas: Atlas) -> pd.DataFrame:
    """`soma_joinid` and `obs_id` of the training cells."""
    cells = read_table(atlas.cells, [names.JOINID, names.OBS_ID, names.SPLIT])
    return cells[cells[names.SPLIT] == names.PARTS[0]]


def read_joinids(atlas: Atlas) -> np.ndarray:
    """The training cells (n,), as the experiment names them."""
    return read_train(atlas)[names.JOINID].to_numpy()


def order_types(n_cells: int) -> np.ndarray:
    """Type of each cell (n,): the first half sorted by type, the other half in random order."""
    rng = np.random.default_rng(SEED)
    share = rng.dirichlet(np.full(len(LABELS), 4.0))
    type_n = rng.choice(len(LABELS), n_cells, p=share)
    type_n[: n_cells // 2].sort()
    return type_n


def write_source(path: Path, rows: np.ndarray, type_n: np.ndarray) -> None:
    """Write the cells numbered `rows` as a normalized h5ad with its facts, as `normalize` does."""
    genes = list_genes()
    cells = make_cells(path.stem, len(rows), N_DONORS)
    cells[names.CELL_TYPE] = pd.Categorical.from_codes(type_n, LABELS)
    cells[names.CELL_TYPE_ID] = pd.Categorical.from_codes(type_n, [f"CL:{one}" for one in LABELS])
    feature_id = pd.DataFrame({names.FEATURE_ID: genes}, index=genes)
    given = ad.AnnData(obs=cells, var=feature_id, uns={names.ORGANISM: HUMAN})
    facts = normalize_cells(given, [(0, draw_counts(rows, type_n))], genes, str(path), path)
    write_json(facts, path.with_suffix(".json"))


@functools.cache
def list_genes() -> pd.Index:
    """Ids of the human's protein-coding genes."""
    return choose_atlas_genes(names.PROTEIN_CODING, HUMAN)


@functools.cache
def type_rates() -> np.ndarray:
    """Share of a cell's molecules per type and gene (types, g) float32."""
    rng = np.random.default_rng([SEED, 1])
    popularity = (10 + rng.permutation(len(list_genes()))) ** -1.2
    rates = popularity * rng.lognormal(sigma=0.5, size=(len(LABELS), len(popularity)))
    return (rates / rates.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def detection_chances() -> np.ndarray:
    """Chance that a gene is detected, by type, depth and gene (types, depths, g) float32."""
    return -np.expm1(-type_rates()[:, None] * DEPTHS[:, None]).astype(np.float32)


def draw_counts(rows: np.ndarray, type_n: np.ndarray) -> sp.csr_matrix:
    """Counts of the cells numbered `rows` (n,) of these types (n,): canonical CSR int32 (n, g)."""
    depth_n = (mix_bits(np.uint64(SEED), rows.astype(np.uint64)) >> np.uint64(61)).astype(np.int64)
    arguments = (rows.astype(np.uint64), type_n, depth_n, detection_chances())
    indptr = np.concatenate([[0], np.cumsum(count_entries(*arguments))])
    gene, count = np.empty((2, indptr[-1]), dtype=np.int32)
    fill_entries(*arguments, type_rates(), DEPTHS, indptr, gene, count)
    return sp.csr_matrix((count, gene, indptr), shape=(len(rows), len(list_genes())))


@numba.vectorize(["uint64(uint64, uint64)"])
def mix_bits(one: np.uint64, other: np.uint64) -> np.uint64:
    """64 mixed bits of two numbers (splitmix64)."""
    bits = one * np.uint64(0x9E3779B97F4A7C15) + other
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@numba.njit(inline="always")
def draw(row: np.uint64, gene: int) -> float:
    """A number from [0, 1) that belongs to a cell and a gene."""
    return (mix_bits(row + np.uint64(1), np.uint64(gene)) >> np.uint64(11)) * 2.0**-53


@numba.njit(parallel=True)
def count_entries(row_n, type_n, depth_n, chance_tdg):
    """Detected genes of each cell (n,)."""
    found_n = np.empty(len(row_n), dtype=np.int64)
    for cell in numba.prange(len(row_n)):
        chance_g = chance_tdg[type_n[cell], depth_n[cell]]
        found = 0
        for gene in range(len(chance_g)):
            found += draw(row_n[cell], gene) < chance_g[gene]
        found_n[cell] = found
    return found_n


@numba.njit(parallel=True)
def fill_entries(row_n, type_n, depth_n, chance_tdg, rate_tg, depths, indptr, gene_e, count_e):
    """Genes and counts of all entries: Poisson counts, by inversion of the same draw."""
    for cell in numba.prange(len(row_n)):
        chance_g = chance_tdg[type_n[cell], depth_n[cell]]
        entry = indptr[cell]
        for gene in range(len(chance_g)):
            drawn = draw(row_n[cell], gene)
            if drawn < chance_g[gene]:
                mean = rate_tg[type_n[cell], gene] * depths[depth_n[cell]]
                gene_e[entry] = gene
                count_e[entry] = invert_poisson(1 - drawn, mean)
                entry += 1


@numba.njit
def invert_poisson(drawn: float, mean: float) -> int:
    """The count, at least 1, at which a Poisson's distribution function reaches `drawn`."""
    density = np.exp(-mean)
    reached, count = density, 0
    while count == 0 or (reached < drawn and count < 4 * mean + 40):
        count += 1
        density *= mean / count
        reached += density
    return count
