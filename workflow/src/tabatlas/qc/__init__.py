"""QC: source h5ad → filtered h5ad; a table with every cell, its metrics, verdict and reasons."""
