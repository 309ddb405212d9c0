"""What tests of the workflow share."""

import pytest
from tiny_atlas import Workdir


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The tiny atlas, built to its report."""
    workdir = Workdir(tmp_path_factory.mktemp("atlas"))
    workdir.snakemake("--cores", "2", *workdir.configure())
    return workdir
