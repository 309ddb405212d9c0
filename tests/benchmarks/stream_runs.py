"""One loader of stream.py, in a process of its own.

python stream_runs.py LOADER ATLAS N_EPOCHS

prints a line of JSON. Every loader yields minibatches of the training cells with their labels, as
compressed rows. Opening is not timed, and the first epoch warms up.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import tiledbsoma
from stream_data import LABELS, MINIBATCH, Atlas, read_joinids, read_train
from stream_measure import Epoch, answer, measure_epochs

from tabatlas import names
from tabatlas.experiment import Experiment, open_experiment
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import PLAN, SomaSource


def main(loader: str, folder: str, n_epochs: str) -> None:
    """Run a loader over some epochs and tell what they took."""
    with LOADERS[loader](Atlas(Path(folder))) as epoch:
        answer(measure_epochs(epoch, int(n_epochs)))


def take_labels(minibatches: Iterator[Minibatch]) -> Iterator[np.ndarray]:
    """Labels of our own minibatches."""
    for one in minibatches:
        assert len(one.gene) == one.indptr[-1]
        yield one.label.numpy()


@contextlib.contextmanager
def open_packed(atlas: Atlas) -> Iterator[Epoch]:
    """The pack."""
    source = PackedSource(atlas.pack, names.PARTS[0], labels=LABELS)
    order = source.order(MINIBATCH, seed=0)
    yield lambda epoch: take_labels(source.shuffle(order, epoch))


@contextlib.contextmanager
def open_soma(atlas: Atlas) -> Iterator[Epoch]:
    """Blocks of the experiment."""
    with open_experiment(atlas.manifest) as experiment:
        genes = experiment.read_var()[names.FEATURE_ID]
        source = SomaSource(experiment, read_joinids(atlas), genes, labels=LABELS)
        order = source.order(MINIBATCH, seed=0)
        yield lambda epoch: take_labels(source.shuffle(order, epoch))


@contextlib.contextmanager
def open_bare(atlas: Atlas) -> Iterator[Epoch]:
    """The reads of `soma` alone: the same coordinates in the same order, thrown away."""
    joinids = np.sort(read_joinids(atlas))
    order = Order(len(joinids), MINIBATCH, PLAN, seed=0)
    with open_experiment(atlas.manifest) as experiment:

        def read_epoch(number: int) -> Iterator[np.ndarray]:
            epoch = order.draw(number)
            for buffer in range(epoch.n_buffers):
                rows = np.sort(epoch.read_buffer(buffer))
                for _ in open_raw(experiment).read(coords=(joinids[rows],)).tables():
                    pass
                yield np.zeros(len(rows), dtype=np.int64)

        yield read_epoch


def open_raw(experiment: Experiment) -> tiledbsoma.SparseNDArray:
    """X["raw"]."""
    return experiment.soma.ms[names.MEASUREMENT].X[names.RAW_LAYER]


@contextlib.contextmanager
def open_memory(atlas: Atlas) -> Iterator[Epoch]:
    """Random rows of one CSR matrix in memory: what no loader from a disk can do."""
    sources = sorted((atlas.folder / "normalize").glob("*.h5ad"))
    kept = [ad.read_h5ad(path) for path in sources]
    train = set(read_train(atlas)[names.OBS_ID])
    kept = [one[one.obs_names.isin(train)] for one in kept]
    counts = sp.vstack([one.X for one in kept], format="csr")
    text = pd.concat([one.obs[names.CELL_TYPE].astype(str) for one in kept])
    label_n = pd.Categorical(text, categories=LABELS).codes.astype(np.int64)
    del kept

    def read_epoch(number: int) -> Iterator[np.ndarray]:
        rows = np.random.default_rng(number).permutation(len(label_n))
        for start in range(0, len(rows), MINIBATCH):
            chosen = rows[start : start + MINIBATCH]
            assert counts[chosen].shape[0] == len(chosen)
            yield label_n[chosen]

    yield read_epoch


@contextlib.contextmanager
def open_tiledbsoma_ml(atlas: Atlas) -> Iterator[Epoch]:
    """The loader of TileDB and CZI on the same experiment.

    Its shuffle with the defaults (chunks of 64 cells, 65,536 of them at once, the next ones read
    ahead in a thread), sparse rows, no workers: those would cost a process each and mix less.
    """
    from tiledbsoma_ml import ExperimentDataset, experiment_dataloader

    chosen = tiledbsoma.AxisQuery(coords=(read_joinids(atlas),))
    options = {"obs_column_names": [names.CELL_TYPE], "batch_size": MINIBATCH}
    with (
        open_experiment(atlas.manifest) as experiment,
        experiment.soma.axis_query(names.MEASUREMENT, obs_query=chosen) as query,
    ):

        def read_epoch(number: int) -> Iterator[np.ndarray]:
            cells = ExperimentDataset(
                query, names.RAW_LAYER, seed=number, return_sparse_X=True, **options
            )
            for counts, obs in experiment_dataloader(cells):
                assert counts.shape[0] == len(obs)
                yield obs[names.CELL_TYPE].cat.codes.to_numpy()

        yield read_epoch


LOADERS = {
    "packed": open_packed,
    "soma": open_soma,
    "tiledb_bare_read": open_bare,
    "in_memory": open_memory,
    "tiledbsoma_ml": open_tiledbsoma_ml,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
