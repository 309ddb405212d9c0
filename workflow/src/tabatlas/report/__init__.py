"""Tell how good the model is, on one page.

Reads the scores and tables of all stages and Snakemake's benchmark files.
Writes `index.html` (self-contained, no network), `report.json` (every number about the atlas and
the model, equal in every build) and `run.json` (host, times, memory, installed versions: what
differs between two runs).
"""
