import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tabatlas.provenance import (
    PACKAGE,
    atomic_path,
    digest_file,
    digest_json,
    read_json,
    stage_digest,
    stage_sources,
    write_json,
    write_text,
)

STAGES = ("fetch", "qc", "normalize", "split", "report")


def test_file_appears_under_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "old"])
def test_error_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(UnicodeEncodeError):
        write_text("half \ud800", path)
    assert [one.read_text() for one in tmp_path.iterdir()] == ([before] if before else [])


def test_files_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    write_text("x", tmp_path / "ours")
    (tmp_path / "plain").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1


def test_long_names_are_written(tmp_path: Path) -> None:
    write_text("x", tmp_path / ("n" * 250))
    assert [len(path.name) for path in tmp_path.iterdir()] == [250]


def test_json_is_written_the_same_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json({"b": [1.5, "ü"], "a": None}, tmp_path / "1")
    write_json({"a": None, "b": [1.5, "ü"]}, tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert read_json(tmp_path / "1") == {"a": None, "b": [1.5, "ü"]}


def test_digest_of_json_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_json("1") != digest_json(1)


def test_json_that_others_cannot_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    write_text("abc", tmp_path / "a")
    assert digest_file(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# which stages an edit touches


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that may be edited."""
    copy = tmp_path_factory.mktemp("source") / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digest_stages(package: Path) -> dict[str, str]:
    """Digest of each stage of a copy of the package."""
    code = (
        "from tabatlas.provenance import stage_digest\n"
        f"for stage in {STAGES}: print(stage, stage_digest(stage))"
    )
    call = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(package.parent)}
    printed = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    return dict(line.split() for line in printed.stdout.splitlines())


@pytest.mark.parametrize(
    ("edited", "touched"),
    [
        ("qc/measure.py", {"qc"}),
        ("ontology.py", {"fetch"}),
        ("counts.py", {"fetch", "qc", "normalize"}),
        ("names.py", set(STAGES)),
        ("report/templates/new.html", {"report"}),
        ("cli.py", set()),
        ("qc/__pycache__/measure.pyc", set()),
    ],
)
def test_edit_changes_the_digest_of_the_stages_that_run_it(
    package: Path, edited: str, touched: set[str]
) -> None:
    before = digest_stages(package)
    path = package / edited
    path.parent.mkdir(exist_ok=True, parents=True)
    with open(path, "a") as file:
        file.write("# edited\n")
    after = digest_stages(package)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == touched


def test_sources_of_a_stage_are_its_folder_and_what_it_imports() -> None:
    sources = {str(path.relative_to(PACKAGE)) for path in stage_sources("fetch")}
    assert {"fetch/stage.py", "fetch/labels.py", "counts.py", "errors.py"} <= sources
    assert not any(name.startswith(("qc/", "tabnet/")) for name in sources)


def test_digest_of_a_stage_is_the_same_each_time() -> None:
    assert stage_digest("qc") == stage_digest("qc")


def test_digest_of_a_stage_that_does_not_exist_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="fetchh"):
        stage_digest("fetchh")
