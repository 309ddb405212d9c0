"""Which genes `pack.genes: hvg` chooses where datasets measured different genes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from small_atlas import UNMEASURED
from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.experiment import open_experiment
from tabatlas.pack.variable import Sample, find_highest, measure_dispersion, rank_variable_genes
from tabatlas.stream.packed import PackedSource

N_CELLS, N_GENES = 200, 1000


def draw_sample(seed, measured_g=None, variable=(), n_cells=N_CELLS):
    """Poisson counts of cells of equal depth; `variable` genes are on in half of the cells."""
    rng = np.random.default_rng(seed)
    rate_g = np.random.default_rng(0).uniform(2, 6, N_GENES)
    # Spread over the bins of means, in each of which they are rare.
    rate_g[list(variable)] = np.linspace(2.5, 5.5, len(variable))
    rate_ng = np.tile(rate_g, (n_cells, 1))
    rate_ng[:, list(variable)] *= 2.0 * (np.arange(n_cells) % 2)[:, None]
    measured_g = np.ones(N_GENES, dtype=bool) if measured_g is None else measured_g
    counts = sp.csr_matrix(rng.poisson(rate_ng) * measured_g, dtype=np.int32)
    return Sample(counts, counts.sum(axis=1).A1, measured_g)


def rank_scanpy(samples, n_top):
    """scanpy's own choice with the dataset as batch."""
    values = sp.vstack([log1p_cp10k(one.counts, one.total_n) for one in samples])
    batch = np.repeat([f"d{n}" for n in range(len(samples))], [len(one.total_n) for one in samples])
    obs = pd.DataFrame({"batch": pd.Categorical(batch)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(X=values.tocsr(), obs=obs)
    sc.pp.highly_variable_genes(adata, n_top_genes=n_top, batch_key="batch")
    return np.flatnonzero(adata.var["highly_variable"])


@pytest.mark.parametrize("n_samples", [1, 3])
def test_where_all_measured_every_gene_the_choice_is_scanpys(n_samples):
    samples = [draw_sample(seed, variable=range(seed, 20)) for seed in range(n_samples)]
    # A gene that one of them never saw is measured all the same.
    samples[0].counts.data[samples[0].counts.indices == 900] = 0
    samples[0].counts.eliminate_zeros()
    found = rank_variable_genes(samples, N_GENES, 30)
    np.testing.assert_array_equal(found, rank_scanpy(samples, 30))


def test_a_gene_that_is_missing_somewhere_is_not_variable_for_that():
    missing, variable = range(N_GENES - 15, N_GENES), range(20)
    measured_g = ~np.isin(np.arange(N_GENES), missing)
    samples = [draw_sample(1, variable=variable), draw_sample(2, measured_g, variable=variable)]
    found = rank_variable_genes(samples, N_GENES, 20)
    assert found.tolist() == list(variable)
    # Taken for zeros they are off in half of all cells, and more variable than any flat gene.
    pooled = Sample(
        sp.vstack([one.counts for one in samples]).tocsr(),
        np.concatenate([one.total_n for one in samples]),
        np.ones(N_GENES, dtype=bool),
    )
    wrong_g = measure_dispersion(pooled)
    assert (wrong_g[missing] > wrong_g[20:-15].max()).sum() > 5


def test_a_variable_gene_of_one_dataset_beats_flat_genes_of_all():
    last_g = np.ones(N_GENES, dtype=bool)
    last_g[-10:] = False
    variable = range(N_GENES - 10, N_GENES)
    samples = [draw_sample(1, variable=variable), draw_sample(2, last_g), draw_sample(3, last_g)]
    assert set(rank_variable_genes(samples, N_GENES, 20)) >= set(variable)


def test_a_panel_does_not_vote_for_every_gene_it_has():
    panel_g = np.zeros(N_GENES, dtype=bool)
    panel_g[:40] = True
    variable = range(100, 120)
    samples = [draw_sample(1, variable=variable), draw_sample(2, panel_g)]
    assert set(rank_variable_genes(samples, N_GENES, 24)) >= set(variable)


def test_a_dataset_that_shows_none_of_its_genes_votes_for_nothing():
    nothing = sp.csr_matrix((5, N_GENES), dtype=np.int32)
    silent = Sample(nothing, np.zeros(5, dtype=np.int64), np.ones(N_GENES, dtype=bool))
    sample = draw_sample(1, variable=range(10))
    found = rank_variable_genes([silent, sample], N_GENES, 10)
    assert found.tolist() == list(range(10))


def test_the_highest_values_are_those_with_equals_of_the_last_and_never_unknown():
    values = np.array([3.0, np.nan, 1.0, 2.0, 2.0])
    assert find_highest(values, 2).tolist() == [True, False, False, True, True]
    assert find_highest(values, 9).tolist() == [True, False, True, True, True]
    assert not find_highest(values, 0).any()
    assert not find_highest(np.full(3, np.nan), 2).any()


def test_the_packs_variable_genes_are_ranked_within_its_datasets(copied):
    copied.run_pack()
    everything = PackedSource(copied.pack, "train")
    minibatch = everything.read(np.arange(len(everything)))
    counts, presence_mg = minibatch.to_csr(everything.n_genes), everything.presence.numpy()
    assert not presence_mg[:, UNMEASURED].all()
    samples = []
    for dataset in range(len(presence_mg)):
        rows = np.flatnonzero(minibatch.dataset.numpy() == dataset)
        samples.append(Sample(counts[rows], minibatch.total_n.numpy()[rows], presence_mg[dataset]))
    wanted = rank_variable_genes(samples, everything.n_genes, 20)
    copied.run_pack(genes="hvg", n_hvg=20)
    chosen = PackedSource(copied.pack, "train").genes[names.FEATURE_ID]
    with open_experiment(copied.manifest) as experiment:
        var = experiment.read_var()
    assert pd.Index(var[names.FEATURE_ID]).get_indexer(chosen).tolist() == wanted.tolist()
