"""tabatlas: rebuild a single-cell atlas reproducibly, with TabNet as its foundation model."""
