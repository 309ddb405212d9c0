"""The obs columns of an experiment: one type each over all datasets, text as dictionary."""

from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from tabatlas.errors import InputError
from tabatlas.ingest.sources import Source

TEXT = pa.large_string()
# int32: a screen has more perturbations than int16 can count.
CATEGORY = pa.dictionary(pa.int32(), TEXT)


@dataclass
class ObsColumns:
    """Type of every obs column, and the categories that the datasets added so far use."""

    types: dict[str, pa.DataType] = field(default_factory=dict)
    categories: dict[str, set[str]] = field(default_factory=dict)
    first: str = ""

    def add(self, source: Source, cells: pd.DataFrame) -> None:
        """Add the columns of a dataset. Raises `InputError` where they differ from the others'."""
        types = {name: arrow_type(cells[name]) for name in cells}
        if not self.types:
            self.types, self.first = types, source.dataset_id
        for name in sorted(types.keys() | self.types.keys()):
            ours, theirs = types.get(name), self.types.get(name)
            if ours != theirs:
                raise InputError(
                    f"{source.path}: obs column `{name}` is {ours or 'missing'}, but "
                    f"{theirs or 'missing'} in `{self.first}`. Run all stages before for both."
                )
        for name, kind in types.items():
            if kind == CATEGORY:
                used = cells[name].cat.remove_unused_categories().cat.categories
                self.categories.setdefault(name, set()).update(used)

    def schema(self) -> pa.Schema:
        """Arrow schema of obs."""
        return pa.schema(list(self.types.items()))

    def enumerations(self) -> dict[str, pa.Array]:
        """Sorted categories of every dictionary column."""
        return {name: pa.array(sorted(used), TEXT) for name, used in self.categories.items()}

    def to_table(self, cells: pd.DataFrame) -> pa.Table:
        """A dataset's obs as an Arrow table of the common schema."""
        values = self.enumerations()
        arrays = [
            encode_column(cells[name], kind, values.get(name)) for name, kind in self.types.items()
        ]
        return pa.table(arrays, schema=self.schema())


def arrow_type(column: pd.Series) -> pa.DataType:
    """How a column is stored: numbers as they are, categories as dictionary, the rest as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return CATEGORY
    return pa.from_numpy_dtype(column.dtype) if column.dtype.kind in "iufb" else TEXT


def encode_column(column: pd.Series, kind: pa.DataType, categories: pa.Array | None) -> pa.Array:
    """A column as an Arrow array; `categories` are those of a dictionary."""
    if categories is None:
        return pa.array(column, type=kind)
    codes = pd.Categorical(column, categories=categories.to_pylist()).codes
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), categories)
