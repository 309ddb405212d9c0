import pytest
from query_files import make_query

from tabatlas.annotate import Model


@pytest.fixture(scope="session")
def model(bundle):
    return Model.load(bundle, "cpu")


@pytest.fixture
def query(atlas):
    """All genes of the model, by Ensembl id; counts in X."""
    return make_query(atlas)


@pytest.fixture
def expected(model, query):
    """What the model says of the query in memory."""
    return model.annotate(query.copy())
