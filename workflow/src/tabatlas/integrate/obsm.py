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


def write_obsm(experiment: Experiment, name: str, embedding: Path) -> None:
    """Write the table of an embedding into `obsm`, row group by row group, at joinids as rows.

    It is written now, after the timestamp that seals the experiment: who reads the sealed content
    does not see it, and its digest stays what it is. Raises `ModelError` where an array of another
    shape has that name.
    """
    table = pq.ParquetFile(embedding)
    dimensions = [column for column in table.schema.names if column.startswith("z")]
    assert dimensions == name_dimensions(len(dimensions))
    shape = (experiment.about["n_obs"], len(dimensions))
    with tiledbsoma.Experiment.open(experiment.soma.uri, "w") as target:
        place = open_array(target, name, shape)
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
    if name not in obsm:
        return obsm.add_new_dense_ndarray(name, type=pa.float32(), shape=shape)
    if obsm[name].shape != shape:
        raise ModelError(
            f"integrate.obsm: {name}: the experiment has one of shape {obsm[name].shape}, not "
            f"{shape}. Choose another name."
        )
    return obsm[name]
