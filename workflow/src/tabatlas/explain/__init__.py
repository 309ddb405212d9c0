"""Explain: classifier → what its masks select, and whether that deserves belief.

`replicate` trains the classifier again with another seed: folder of the encoder and the pack → a
model's folder under `explain/replicates/`. `attribute` reads the classifier, its replicates and the
test cells, and writes the masks of a sample of them (`masks.parquet`, `importances.parquet`), their
means (`types.parquet`, `steps.parquet`), and `scores.json`: stability over seeds, agreement with
known markers, and what hiding the important genes does to the answer.
"""
