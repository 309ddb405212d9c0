"""One loader of stream.py, in a process of its own.

python stream_runs.py time|profile LOADER ATLAS N_EPOCHS
python stream_runs.py memory LOADER ATLAS N_MINIBATCHES

prints a line of JSON. Every loader yields minibatches of the training cells with their labels, as
compressed rows. Opening is not timed, and the first epoch warms up.
"""

import collections
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import tiledbsoma
import torch
from stream_data import LABELS, MINIBATCH, Atlas, list_sources, read_joinids, read_train
from stream_measure import Epoch, answer, measure_epochs, measure_memory
from stream_profile import sample_lines
from tiledbsoma import SOMATileDBContext

from tabatlas import names
from tabatlas.experiment import locate_store, open_experiment
from tabatlas.provenance import read_json
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.prefetch import Reading
from tabatlas.stream.soma import PLAN, SomaSource

# Its fastest of 4 MiB, 64 MiB and SOMA's default of 1 GiB.
PEER_BUFFERS = {"soma.init_buffer_bytes": 64 * 2**20}


def main(task: str, loader: str, folder: str, number: str) -> None:
    """Do one task with one loader and tell what was found."""
    with LOADERS[loader](Atlas(Path(folder))) as epoch:
        answer(TASKS[task](epoch, int(number)))


def profile_epochs(epoch: Epoch, n_epochs: int) -> dict[str, float]:
    """Where the time of some epochs goes, after one that warms up."""
    collections.deque(epoch(0), maxlen=0)
    with sample_lines() as shares:
        for number in range(1, n_epochs + 1):
            collections.deque(epoch(number), maxlen=0)
    return shares


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
def open_packed_gpu(atlas: Atlas) -> Iterator[Epoch]:
    """The pack, copied to a GPU, made dense and normalized there."""
    device = torch.device("cuda")
    reading = Reading(threads=4, pinned=True)
    source = PackedSource(atlas.pack, names.PARTS[0], labels=LABELS, reading=reading)
    order = source.order(MINIBATCH, seed=0)

    def read_epoch(number: int) -> Iterator[np.ndarray]:
        for one in source.shuffle(order, number):
            there = one.to(device)
            there.densify(source.n_genes)
            yield there.label.cpu().numpy()  # waits for all that is before it

    yield read_epoch


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
                for _ in experiment.counts.read(coords=(joinids[rows],)).tables():
                    pass
                yield rows

        yield read_epoch


@contextlib.contextmanager
def open_memory(atlas: Atlas) -> Iterator[Epoch]:
    """Random rows of one CSR matrix in memory: what no loader from a disk can do."""
    kept = [ad.read_h5ad(path) for path in list_sources(atlas)]
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

    Its shuffle with the defaults (chunks of 64 cells, 65,536 cells at once, the next ones read
    ahead in a thread), sparse rows, no workers: those would cost a process each and mix less.
    """
    from tiledbsoma_ml import ExperimentDataset, experiment_dataloader

    about = read_json(atlas.manifest)
    uri = locate_store(about["uri"], atlas.manifest)
    context = SOMATileDBContext(timestamp=about["timestamp"], tiledb_config=PEER_BUFFERS)
    chosen = tiledbsoma.AxisQuery(coords=(read_joinids(atlas),))
    options = {"obs_column_names": [names.CELL_TYPE], "batch_size": MINIBATCH}
    with (
        tiledbsoma.Experiment.open(uri, context=context) as experiment,
        experiment.axis_query(names.MEASUREMENT, obs_query=chosen) as query,
    ):

        def read_epoch(number: int) -> Iterator[np.ndarray]:
            cells = ExperimentDataset(
                query, names.RAW_LAYER, seed=number, return_sparse_X=True, **options
            )
            for counts, obs in experiment_dataloader(cells):
                assert counts.shape[0] == len(obs)
                yield obs[names.CELL_TYPE].cat.codes.to_numpy()

        yield read_epoch


TASKS = {"time": measure_epochs, "memory": measure_memory, "profile": profile_epochs}
LOADERS = {
    "packed": open_packed,
    "packed_gpu": open_packed_gpu,
    "soma": open_soma,
    "tiledb_bare_read": open_bare,
    "in_memory": open_memory,
    "tiledbsoma_ml": open_tiledbsoma_ml,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
