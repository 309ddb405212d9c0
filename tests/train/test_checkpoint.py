import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from versions import list_names, make_tensors, read, write

from tabatlas import provenance
from tabatlas.errors import IntegrityError
from tabatlas.train import checkpoint, tensors
from tabatlas.train.checkpoint import read_newest
from tabatlas.train.tensors import read_tensors, write_tensors

# what stands in the folder


def test_there_is_no_checkpoint_before_the_first(tmp_path: Path) -> None:
    assert read_newest(tmp_path) is None
    assert read_newest(tmp_path / "none") is None


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for version, step in enumerate([5, 10, 15, 20]):
        path = write(tmp_path, version, step)
        assert read(tmp_path) == version
    assert path.name == "checkpoint-0000000020-000001.safetensors"
    assert list_names(tmp_path) == ["checkpoint-0000000015-000001.safetensors", path.name]


def test_a_step_that_is_saved_again_replaces_itself(tmp_path: Path) -> None:
    for version, step in enumerate([5, 10, 10]):
        write(tmp_path, version, step)
    assert read(tmp_path) == 2
    assert len(list_names(tmp_path)) == 2


def test_the_later_owner_of_a_step_has_the_newer_checkpoint(tmp_path: Path) -> None:
    for version, owner in enumerate([3, 999_999, 1_000_000]):
        write(tmp_path, version, 5, owner)
    assert read(tmp_path) == 2
    assert len(list_names(tmp_path)) == 2


def test_a_folder_is_made_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(provenance, "sync_folder", synced.append)
    for _ in range(2):
        provenance.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


# what a file holds


def test_equal_content_gives_equal_bytes_whoever_writes_it(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, 7, 5, owner) for name, owner in (("a", 1), ("b", 2))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_tensors_of_every_type_and_shape_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written = {f"part/{kind}": torch.arange(6).reshape(2, 3).to(kind) for kind in tensors.TYPES}
    written |= {
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "number": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "ü\n": torch.ones(1, requires_grad=True),
    }
    state = {"z": [1, 2.5, None], "a": "ü", "m": {}}
    write_tensors(written, state, path)
    found, again = read_tensors(path)
    assert found.keys() == written.keys()
    assert all(torch.equal(found[name], one) for name, one in written.items())
    assert all(found[name].dtype == one.dtype for name, one in written.items())
    assert json.dumps(again) == json.dumps(state), "in the same order"


def test_others_read_it_as_safetensors(tmp_path: Path) -> None:
    path = write(tmp_path, 3, 5)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {*make_tensors(0), "sha256"}
        assert torch.equal(file.get_tensor("model/weight"), make_tensors(3)["model/weight"])


def test_each_tensor_lies_at_a_multiple_of_its_size(tmp_path: Path) -> None:
    content = write(tmp_path, 0, 5).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["count"]["data_offsets"][0] % 8 == 0
    assert header["model/weight"]["data_offsets"][0] % 4 == 0


# damage


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The newest of two checkpoints, versions 0 and 1."""
    write(tmp_path, 0, 5)
    return write(tmp_path, 1, 10)


def list_flips(content: bytes) -> Iterator[bytes]:
    """The content with one bit changed, in each byte of it."""
    for place in range(len(content)):
        for bit in (0, 5, 7):  # the fifth makes small letters of capital ones
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield bytes(changed)


def list_cuts(content: bytes) -> Iterator[bytes]:
    """The content cut at every length, with more behind it, and with pages that are lost."""
    yield from (content[:length] for length in range(len(content)))
    yield content + b"\0"
    yield content + content
    yield bytes(len(content))
    yield from (content[:start].ljust(len(content), b"\0") for start in range(0, len(content), 64))


def check_damage(newest: Path) -> None:
    """Whatever is damaged in the newest checkpoint, the one before is taken."""
    sound = newest.read_bytes()
    for damage in (list_flips, list_cuts):
        for number, content in enumerate(damage(sound)):
            newest.write_bytes(content)
            assert read(newest.parent) == 0, f"{damage.__name__}: number {number} is not found"
    newest.write_bytes(sound)
    assert read(newest.parent) == 1


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of equal messages less."""
    monkeypatch.setattr(checkpoint.logger, "disabled", True)


@pytest.mark.usefixtures("unreported")
def test_every_flipped_byte_and_every_cut_is_found(two: Path) -> None:
    check_damage(two)


def test_damage_is_reported(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = two.read_bytes()
    two.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 2'))
    assert two.read_bytes() != content
    assert read(two.parent) == 0
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(two) in record.message
    assert "its bytes are not those that were written" in record.message


def test_where_all_are_damaged_nothing_starts_from_zero(two: Path) -> None:
    for path in two.parent.iterdir():
        path.write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"all of its checkpoints \(2\).*Restore one") as error:
        read_newest(two.parent)
    assert str(two.parent) in str(error.value)


def test_a_damaged_checkpoint_does_not_count_among_the_two(two: Path) -> None:
    two.write_bytes(b"")
    newest = write(two.parent, 2, 12, 2)
    assert not two.exists()
    newest.write_bytes(b"")
    assert read(two.parent) == 0


def test_a_later_step_that_was_passed_over_does_not_come_back(two: Path) -> None:
    two.write_bytes(b"")
    write(two.parent, 2, 8, 2)
    assert read(two.parent) == 2
    assert len(list_names(two.parent)) == 2


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        read_newest(tmp_path / "file")


def test_an_unreadable_checkpoint_is_passed_over(two: Path) -> None:
    two.unlink()
    two.mkdir()
    assert read(two.parent) == 0


@pytest.mark.usefixtures("unreported")
def test_the_search_for_damage_fails_without_the_hash(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "is_whole", lambda content: True)
    with pytest.raises(AssertionError):
        check_damage(two)
