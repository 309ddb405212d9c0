"""Fixtures that several folders share."""

import pytest

from small_atlas import Atlas, make_atlas


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """A small atlas, split and packed. Donors 0 and 1 have cells in all three datasets."""
    made = make_atlas(tmp_path_factory.mktemp("atlas"))
    made.run_split(test_fraction=0.3, validation_fraction=0.2)
    made.run_pack(shard_cells=50)
    return made
