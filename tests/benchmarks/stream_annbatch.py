"""annbatch, a peer of stream.py, in an environment of its own (envs/annbatch.txt).

    python stream_annbatch.py prepare COLLECTION.zarr CELLS.txt SOURCE.h5ad...
    python stream_annbatch.py measure COLLECTION.zarr N_EPOCHS

As its documentation has it: a collection of shuffled zarr shards (its defaults: 64 cells per
chunk, lz4), zarrs as the codec pipeline, of obs only the label, and the loader's own threads. Of
its buffers of 64 … 2,048 cells at once none was faster than its default, 32 times 512.
"""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import zarr
from annbatch import DatasetCollection, Loader
from stream_measure import answer, measure_epochs

LABEL = "cell_type"
CHUNKS = {"chunk_size": 512, "preload_nchunks": 32}


def prepare(collection, cells, *sources):
    """Write the sources' cells that the text file names, one a line, as a shuffled collection."""
    wanted = set(Path(cells).read_text().split())

    def load_adata(path):
        adata = ad.read_h5ad(path)
        kept = adata[adata.obs_names.isin(wanted)]
        return ad.AnnData(kept.X, kept.obs[[LABEL]].astype(str), kept.var[[]])

    rng = np.random.default_rng(0)
    DatasetCollection(collection).add_adatas(list(sources), load_adata=load_adata, rng=rng)
    answer({"n_cells": len(wanted)})


def load_labelled(group):
    """X on disk and the label of a part of the collection."""
    obs = ad.io.read_elem(group["obs"])[[LABEL]].astype("category")
    return ad.AnnData(X=ad.io.sparse_dataset(group["X"]), obs=obs)


def measure(collection, n_epochs):
    """Epochs of the whole collection."""

    stored = DatasetCollection(collection, mode="r")
    loader = Loader(batch_size=1024, shuffle=True, rng=np.random.default_rng(0), **CHUNKS)
    loader.use_collection(stored, load_adata=load_labelled)

    def epoch(_):
        for one in loader:
            assert one["X"].shape[0] == len(one["obs"])
            yield one["obs"][LABEL].cat.codes.to_numpy()

    answer(measure_epochs(epoch, int(n_epochs)))


zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
{"prepare": prepare, "measure": measure}[sys.argv[1]](*sys.argv[2:])
