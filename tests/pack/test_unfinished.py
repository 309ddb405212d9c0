"""A pack that was not finished, or in a folder that is another's."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from synthetic import gene_ids
from tabatlas import names
from tabatlas.errors import IntegrityError, ModelError, UsageError
from tabatlas.experiment import open_experiment
from tabatlas.pack import stage as pack
from tabatlas.provenance import digest_files, read_json
from tabatlas.stream.packed import PackedSource


class Killed(BaseException):
    """The end of the process: nothing of ours runs after it."""


def kill(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["spill", "shards", "content", "rename", "manifest"])
def test_a_half_written_pack_is_none_and_is_packed_again(copied, moment, monkeypatch):
    copied.pack.unlink()
    shutil.rmtree(copied.pack.parent / "shards")
    targets = {
        "spill": ("tabatlas.pack.shards.copy_held", kill),
        "shards": ("tabatlas.pack.building.write_columns", kill),
        "content": ("tabatlas.pack.stage.write_json", kill),
        "rename": ("pathlib.Path.rename", kill),
        "manifest": ("tabatlas.pack.stage.os.path.relpath", kill),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*targets[moment])
        with pytest.raises(Killed):
            copied.run_pack(shard_cells=50)
    with pytest.raises(ModelError, match="no pack there"):
        PackedSource(copied.pack, "train")
    copied.run_pack(shard_cells=50)
    left = {one.name for one in copied.packed.parent.iterdir()}
    assert left == {copied.packed.name, pack.LOCK}
    copied.read_packed()


KILLER = """
    import os, sys, signal, time
    from pathlib import Path
    import numpy as np
    from small_atlas import Atlas
    from tabatlas.errors import TabatlasError
    from tabatlas.stream.packed import PackedSource

    copied, wanted = Atlas(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes()
    logs = os.open(os.devnull, os.O_WRONLY)

    def start(shard_cells):
        child = os.fork()
        if not child:
            os.dup2(logs, 2)
            copied.run_pack(shard_cells=shard_cells)
            os._exit(0)
        return child

    begun = time.monotonic()
    os.waitpid(start(50), 0)
    whole = time.monotonic() - begun
    assert copied.pack.read_bytes() == wanted
    for number, delay in enumerate(np.random.default_rng(0).uniform(0.05, 1, 8) * whole):
        child = start(20 + number)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            source = PackedSource(copied.pack, "train")
            source.read(np.arange(len(source)))
            print("whole")
        except TabatlasError as error:
            print(type(error).__name__)
    os.waitpid(start(50), 0)
    assert copied.pack.read_bytes() == wanted
"""


def test_after_kills_at_any_moment_a_pack_is_what_it_would_have_been(copied, tmp_path):
    wanted = tmp_path / "wanted.json"
    shutil.copy(copied.pack, wanted)
    shutil.rmtree(copied.pack.parent / "shards")
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    called = [sys.executable, "-c", textwrap.dedent(KILLER), copied.folder, wanted]
    ended = subprocess.run(
        called, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = ended.stdout.split()
    assert len(found) == 8
    assert set(found) <= {"whole", "IntegrityError"}
    copied.read_packed()


# A folder that is another's.


def test_two_packs_at_once_into_one_folder(copied, tmp_path):
    shards = copied.pack.parent / "shards"
    with (
        pack.lock_folder(shards),
        pytest.raises(UsageError, match=r"another `tabatlas pack` is writing there"),
    ):
        copied.run_pack(shard_cells=20)
    before = digest_files(copied.packed)
    copied.run_pack(shard_cells=50)
    assert digest_files(copied.packed) == before


def leave_file(shards: Path) -> None:
    (shards / "notes.txt").write_text("mine")


def leave_named_file(shards: Path) -> None:
    (shards / "0123456789abcdef").write_text("mine")


def leave_link(shards: Path) -> None:
    (shards / "0123456789abcdef").symlink_to(shards.parent)


def leave_folder(shards: Path) -> None:
    (shards / "results").mkdir()


@pytest.mark.parametrize("leave", [leave_file, leave_named_file, leave_link, leave_folder])
def test_a_folder_that_holds_something_else_is_not_packed_into(copied, leave):
    shards = copied.pack.parent / "shards"
    leave(shards)
    before = sorted(shards.rglob("*"))
    with pytest.raises(UsageError, match=r"which is no pack\. Name another folder"):
        copied.run_pack(shard_cells=20)
    assert sorted(shards.rglob("*")) == before


# A pack of something else.


def test_another_gene_list_is_another_pack(tmp_path, atlas):
    with open_experiment(atlas.manifest) as experiment:
        listed = tmp_path / "genes.txt"
        found = []
        for genes in (gene_ids(5), gene_ids(6), gene_ids(5)):
            listed.write_text("\n".join(genes))
            settings = atlas.settings("other", genes=str(listed))
            chosen = pack.PackSettings.read(settings)
            found.append(pack.name_pack(experiment, atlas.cells, chosen))
    assert found[0] == found[2] != found[1]


def test_the_same_content_sealed_again_leaves_the_pack_as_it_is(copied):
    before, path = copied.pack.read_bytes(), copied.packed / pack.CONTENT
    written = path.stat().st_mtime_ns
    about = read_json(copied.manifest)
    pack.write_json(about | {"timestamp": about["timestamp"] + 5000}, copied.manifest)
    copied.run_pack(shard_cells=50)
    assert copied.pack.read_bytes() == before
    assert path.stat().st_mtime_ns == written


def test_other_content_is_another_pack(copied):
    before = read_json(copied.pack)
    pack.write_json(read_json(copied.manifest) | {"digest": "other"}, copied.manifest)
    copied.run_pack(shard_cells=50)
    after = read_json(copied.pack)
    assert {"digest", "folder", "experiment"} <= {
        one for one in before if before[one] != after[one]
    }


CHANGES = {
    "fewer cells": lambda parts: parts.iloc[:-20],
    "other cells": lambda parts: parts.assign(soma_joinid=parts[names.JOINID] + 10),
    "a cell twice": lambda parts: pd.concat([parts, parts.iloc[:1]]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_split_of_other_cells_is_refused(copied, change):
    change(pd.read_parquet(copied.cells)).to_parquet(copied.cells)
    with pytest.raises(IntegrityError, match=r"cells\.parquet: divides .*Run `tabatlas split`"):
        copied.run_pack()


def test_the_order_of_the_split_changes_no_cell(copied):
    before = read_json(copied.pack)["files"]
    parts = pd.read_parquet(copied.cells)
    parts.iloc[::-1].to_parquet(copied.cells)
    copied.run_pack(shard_cells=50)
    assert read_json(copied.pack)["files"] == before
