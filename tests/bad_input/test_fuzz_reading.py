"""Damaged copies of files, read by the real command: refused with a message, or unharmed."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from desk import Desk, Run

from foreign import human_genes, make_foreign
from tabatlas import names
from tabatlas.fetch import isolate
from tabatlas.provenance import digest_file

N_CASES = 300
Damage = Callable[[bytearray, np.random.Generator], bytearray]


def flip_bits(content: bytearray, rng: np.random.Generator, n_bits: int = 1) -> bytearray:
    """Other bits at random places."""
    for place in rng.choice(len(content) * 8, n_bits, replace=False):
        content[place // 8] ^= 1 << (place % 8)
    return content


def flip_many(content: bytearray, rng: np.random.Generator) -> bytearray:
    return flip_bits(content, rng, 20)


def cut_end(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: rng.integers(len(content))]


def lose_block(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Zeros in the place of what a bad sector held."""
    start = rng.integers(len(content) - 512)
    content[start : start + 512] = bytes(512)
    return content


# Single bits most of all: what cannot be seen in the file's size and form.
DAMAGES: tuple[Damage, ...] = (flip_bits, flip_bits, flip_many, flip_bits, cut_end, lose_block)


def make_plain() -> ad.AnnData:
    """As scanpy writes it: categories, floats, an embedding, uncompressed."""
    adata = make_foreign(
        40, 30, cell_type=["B cell", "T cell"] * 20, donor_id=["p", "q"] * 20, age=range(40)
    )
    adata.obsm["X_umap"] = np.zeros((40, 2), dtype=np.float32)
    adata.strings_to_categoricals()
    return adata


def make_10x() -> ad.AnnData:
    """As `scanpy.read_10x_h5` gives it: symbols, ids and types of features."""
    adata = make_foreign(40, 30)
    genes = human_genes(30)
    adata.var["gene_ids"] = adata.var_names
    adata.var[names.FEATURE_TYPES] = "Gene Expression"
    adata.var["genome"] = "GRCh38"
    adata.var_names = genes[names.FEATURE_NAME]
    adata.var.index.name = None
    return adata


FILES = {"plain": (make_plain, None), "10x, gzip": (make_10x, "gzip"), "gzip": (make_plain, "gzip")}


def damage_copies(whole: bytes, number: int) -> Iterator[tuple[int, bytearray]]:
    """The cases of one file, each with its own seed."""
    for case in range(number, N_CASES, len(FILES)):
        rng = np.random.default_rng([case, 0])
        damage = DAMAGES[case // len(FILES) % len(DAMAGES)]
        content = damage(bytearray(whole), rng)
        if content != whole:
            yield case, content


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_damaged_file_is_refused_with_a_message_or_unharmed(
    kind: str,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(isolate, "PATIENCE", 8)  # where damage locks HDF5 in a loop
    make, compression = FILES[kind]
    desk = Desk(tmp_path)
    make().write_h5ad(desk.file, compression=compression)
    whole, digest = desk.file.read_bytes(), digest_file(desk.file)
    assert run(desk.fetch(), tmp_path) == (0, "")
    sound = (desk.out / "cells.h5ad").read_bytes()
    ends: Counter[str] = Counter()
    for case, content in damage_copies(whole, list(FILES).index(kind)):
        ends[read_damaged(Desk(tmp_path / str(case)), content, digest, sound, run)] += 1
    with capfd.disabled():
        print(f"\n{kind}, {len(whole)} bytes: {dict(sorted(ends.items()))}")


def read_damaged(desk: Desk, content: bytes, digest: str, sound: bytes, run: Run) -> str:
    """How reading a damaged file ends: by its digest never otherwise than refused."""
    desk.folder.mkdir()
    code, err = run(desk.fetch_bytes(content, sha256=digest), desk.folder)
    assert (code, "sha256" in err, desk.left()) == (4, True, []), err
    code, err = run(desk.fetch_bytes(content), desk.folder)
    assert "Traceback" not in err
    if code == 0:
        same = (desk.out / "cells.h5ad").read_bytes() == sound
        return "read unharmed" if same else "read as something else, silently"
    assert code == 3, err
    assert desk.left() == []
    assert err.splitlines()[-1].startswith("tabatlas fetch: error: ")
    if "died (" in err:
        return err[err.index("died (") :].split(")")[0] + ")"
    return "not read in time" if "not read within" in err else "refused"
