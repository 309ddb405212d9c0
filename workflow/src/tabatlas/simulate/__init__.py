"""Seeded simulator of the demo atlas: three PBMC-like datasets and one CRISPR activation screen.

Reads settings/simulate.json. Writes one dataset as a user's h5ad (`--cells`: raw counts, CELLxGENE
columns, each dataset with its own gene names and its own place of the counts) and beside it what
made it (`--truth`: true types, doublets, dying cells, programs; `--markers`: the genes that mark
its types). A dataset depends on the settings and its own name alone, never on which others are
made.

The log rate of a gene in a cell is a sum of programs (`programs.py`): cell type, library, donor,
perturbation, and gene modules of continuous activity. The counts are gamma-Poisson
(`molecules.py`). What the atlas holds stands in `design.py` and `markers.py`.
"""
