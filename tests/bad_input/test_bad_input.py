"""The table of bad input: each case ends in one clear message, or in what was meant.

A row is a `Case`; to add some, put them into a tuple `CASES` of a module beside this one.
"""

from pathlib import Path

import bad_atlas
import bad_axes
import bad_config
import bad_counts
import bad_files
import bad_metadata
import bad_models
import bad_packs
import bad_queries
import pytest
from desk import Case, Desk, Run

from tabatlas.fetch import isolate

MODULES = (
    bad_files,
    bad_counts,
    bad_axes,
    bad_metadata,
    bad_atlas,
    bad_config,
    bad_models,
    bad_packs,
    bad_queries,
)
TABLE = {
    f"{module.__name__.removeprefix('bad_')}: {case.name}": case
    for module in MODULES
    for case in module.CASES
}
MOST_LINES, MOST_CHARACTERS = 3, 600


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_case_ends_in_one_clear_message_or_in_what_was_meant(
    case: Case, tmp_path: Path, run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, bundle)
    command = case.arrange(desk)
    if case.seconds is not None:
        monkeypatch.setattr(isolate, "PATIENCE", case.seconds)
    code, err = run(command, tmp_path)
    assert code == case.code, err
    assert "Traceback" not in err
    assert not [path for path in desk.left() if path.name.startswith(".")]
    if case.outcome is not None:
        case.outcome(desk)
        return
    assert not [path for path in desk.left() if path.is_file()]
    lines = [line for line in err.splitlines() if not line.startswith("Using workflow specific")]
    assert 1 <= len(lines) <= MOST_LINES
    assert all(line.startswith("tabatlas") and ": error: " in line for line in lines), err
    assert max(map(len, lines)) <= MOST_CHARACTERS
    assert not [part for part in case.says if part not in err], err


def test_table_has_no_two_rows_of_one_name() -> None:
    assert len(TABLE) == sum(len(module.CASES) for module in MODULES)
