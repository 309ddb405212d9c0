"""Normalize: filtered h5ad → integer counts of the atlas's genes in its order, size factors."""
