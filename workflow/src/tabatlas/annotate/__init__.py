"""Annotate: a finished bundle and a query of any origin → labels, confidence and an embedding.

from tabatlas.annotate import Model
adata = Model.load("pbmc@0.1.0+0123456789ab").annotate(adata)
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`Model`, when it is asked for: processes that only read a file need no torch."""
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tabatlas.annotate.model import Model

    return Model
