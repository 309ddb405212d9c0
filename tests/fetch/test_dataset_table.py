from pathlib import Path

import pytest

from tabatlas.errors import ConfigError
from tabatlas.fetch.settings import Constant
from tabatlas.fetch.table import read_table

HEADER = "dataset_id\tpath\tdonor\tcell_type"


def write(folder: Path, *lines: str, newline: str = "\n") -> Path:
    path = folder / "datasets.tsv"
    path.write_text(newline.join(lines), encoding="utf-8", newline="")
    return path


def test_row_says_what_its_cells_say(tmp_path: Path) -> None:
    path = write(tmp_path, "# ours", "", HEADER, "a\tx.h5ad\tperson\t", "# not now", "b\ty.h5ad")
    first, second = read_table(path)
    assert (first.dataset_id, first.path, first.donor, first.cell_type) == (
        "a",
        "x.h5ad",
        "person",
        None,
    )
    assert second.donor is None


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\t\t\t"])
def test_tables_of_spreadsheets_are_read(
    tmp_path: Path, start: str, newline: str, end: str
) -> None:
    path = write(tmp_path, f"{start}{HEADER}{end}", f" a \tx.h5ad{end}", "\t\t", newline=newline)
    assert [(row.dataset_id, row.path) for row in read_table(path)] == [("a", "x.h5ad")]


@pytest.mark.parametrize("cell", ["{constant: a pool}", '"{constant: ""a pool""}"'])
def test_constant_is_written_as_in_yaml(tmp_path: Path, cell: str) -> None:
    (row,) = read_table(write(tmp_path, HEADER, f"a\tx.h5ad\t{cell}"))
    assert row.donor == Constant(constant="a pool")


@pytest.mark.parametrize("cell", ["NO", "1.10", "2024-01-01", "null", "[a]", "a: b"])
def test_cells_stay_text_whatever_yaml_would_make_of_them(tmp_path: Path, cell: str) -> None:
    assert read_table(write(tmp_path, HEADER, f"a\tx.h5ad\t{cell}"))[0].donor == cell


def test_separators_of_lines_that_only_unicode_knows_split_no_row(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, HEADER, "a\tx\u2028y.h5ad"))[0].path == "x\u2028y.h5ad"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "no header in it. Its columns are dataset_id, path, "),
        (("a\tx.h5ad",), "line 1: the header names `a`, no known column; known: dataset_id, "),
        (
            ("dataset_id\tpath\tceltype",),
            "line 1: the header names `celtype`, .* did you mean `cell_",
        ),
        (("dataset_id,path",), "line 1: the header names `dataset_id,path`, no known column"),
        (("dataset_id\tdonor",), "line 1: the header lacks `path`"),
        (("path\tpath\tdataset_id",), "line 1: the header names `path` twice"),
        (("dataset_id\t\tpath",), "line 1: the header names ``, no known column"),
        ((HEADER, "a\tx\tc\td\te"), "line 2: 5 cells, but the header has 4"),
        ((HEADER, "# b", "a"), "line 3: `path` is missing"),
        ((HEADER, "../x\ty.h5ad"), 'line 2: `dataset_id: "../x"`'),
        ((HEADER, "a\ts3://x"), "line 2: .*only http:// and https:// URLs"),
        ((HEADER, "a\tx\t{constant: "), "line 2: `{constant:` is not of the form"),
        ((HEADER, "a\tx\t{constnt: b}"), "line 2: `donor.constnt` .* did you mean `constant`"),
        ((HEADER, 'a\t"x'), "line 2: unexpected end of data"),
    ],
)
def test_wrong_line_is_named_by_its_number(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"datasets.tsv:? {message}"):
        read_table(write(tmp_path, *lines))


@pytest.mark.parametrize("content", [None, b"dataset_id\xff"])
def test_table_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "datasets.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"datasets.tsv: not a readable dataset table"):
        read_table(path)
