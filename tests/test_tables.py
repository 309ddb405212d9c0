import pandas as pd
import pyarrow as pa
import pytest

from tabatlas.tables import open_table, read_table

SCHEMA = pa.schema({"a": pa.int32()})


def test_a_table_grows_row_by_row_and_holds_no_more_than_its_schema(tmp_path):
    with open_table(tmp_path / "t.parquet", SCHEMA) as append:
        for start in (0, 3):
            append(pd.DataFrame({"a": range(start, start + 3)}, index=[7, 8, 9]))
    assert read_table(tmp_path / "t.parquet")["a"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_table_that_was_not_finished_is_not_there(tmp_path):
    def write() -> None:
        with open_table(tmp_path / "t.parquet", SCHEMA) as append:
            append(pd.DataFrame({"a": [1]}))
            append(pd.DataFrame({"b": [1]}))

    with pytest.raises(KeyError):
        write()
    assert not list(tmp_path.iterdir())
