"""Fetch: a row of the dataset table → one verified source h5ad with the atlas's own names."""
