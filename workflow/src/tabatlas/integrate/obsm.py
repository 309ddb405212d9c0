"""Put the embedding beside the cells of the experiment, for those who read it with SOMA."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiledbsoma

from tabatlas import names
from tabatlas.errors import ModelError
from tabatlas.experiment import Experiment
from tabatlas.integrate.embed import name_dimensions


def check_shape(experiment: Experiment, name: str, n_latent: int) -> None:
    """Raise `ModelError` where `obsm` has an array of that name and of another shape."""
    shape = (experiment.about["n_obs"], n_latent)
    # Not at the timestamp of the manifest: what an earlier run wrote came later.
    with tiledbsoma.Experiment.open(experiment.soma.uri) as now:
        measurement = now.ms[names.MEASUREMENT]
        if "obsm" not in measurement or name not in measurement["obsm"]:
            return
        found = measurement["obsm"][name].shape
    if found != shape:
        raise ModelError(
            f"integrate.obsm: {name}: the experiment has one of shape {found}, not {shape}. "
            "Choose another name."
        )


def write_obsm(experiment: Experiment, name: str, n_latent: int, embedding: Path) -> None:
    """Write the table of an embedding into `obsm`, row group by row group, at joinids as rows.

    It is written now, after the timestamp that seals the experiment: who reads the sealed content
    does not see it, and its digest stays what it is.
    """
    table = pq.ParquetFile(embedding)
    dimensions = name_dimensions(n_latent)
    with tiledbsoma.Experiment.open(experiment.soma.uri, "w") as target:
        place = open_array(target, name, (experiment.about["n_obs"], n_latent))
        for number in range(table.num_row_groups):
            group = table.read_row_group(number)
            joinid_n = group[names.JOINID].to_numpy()
            assert np.array_equal(joinid_n, np.arange(len(joinid_n)) + joinid_n[0])
            place_nz = np.stack([group[one].to_numpy() for one in dimensions], axis=1)
            rows = slice(int(joinid_n[0]), int(joinid_n[-1]))  # SOMA's slices hold their end
            place.write((rows, slice(None)), pa.Tensor.from_numpy(place_nz))


def open_array(
    target: tiledbsoma.Experiment, name: str, shape: tuple[int, int]
) -> tiledbsoma.DenseNDArray:
    """The array of that name, made where there is none."""
    measurement = target.ms[names.MEASUREMENT]
    if "obsm" not in measurement:
        measurement.add_new_collection("obsm")
    obsm = measurement["obsm"]
    if name in obsm:
        return obsm[name]
    return obsm.add_new_dense_ndarray(name, type=pa.float32(), shape=shape)
