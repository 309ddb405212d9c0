"""Settings of `qc`.

MADs are scaled by 1.4826, as in R and scuttle: one MAD is a standard deviation of a normal
distribution.
"""

from pydantic import Field

from tabatlas.settings import StageSettings


class QCSettings(StageSettings):
    """Which cells are dropped. A sample is what shares one value of `batch`."""

    min_counts: int = Field(
        1, ge=0, description="Least counts of a cell; an empty cell tells nothing (own choice)."
    )
    max_counts: int | None = Field(
        None, ge=1, description="Most counts of a cell; null sets no limit (own choice)."
    )
    min_genes: int = Field(
        200, ge=0, description="Least detected genes of a cell (scanpy's and Seurat's tutorials)."
    )
    panel_genes: int = Field(
        10_000,
        ge=0,
        description="A file with fewer genes is a panel or a subset: how many of them a cell "
        "shows says more about the panel than about the cell (own choice).",
    )
    panel_min_genes: int = Field(
        1, ge=0, description="`min_genes` for panels and subsets (own choice)."
    )
    max_pct_mt: float = Field(
        50.0,
        ge=0,
        le=100,
        description="Most mitochondrial counts of a cell, in percent: above the 30 % of healthy "
        "heart (Mercer et al. 2011); what is high within a sample, `mads_mt` decides.",
    )
    min_sample_cells: int = Field(
        50,
        ge=2,
        description="Samples with fewer cells get the fixed limits only: their median and MAD "
        "say little (own choice).",
    )
    mads_counts: float = Field(
        5.0,
        gt=0,
        description="MADs from the sample's median, both ways, beyond which log counts are an "
        "outlier (sc-best-practices: 5; the 3 of scuttle lose platelets and dendritic cells).",
    )
    mads_genes: float = Field(
        5.0, gt=0, description="The same for log detected genes (sc-best-practices: 5)."
    )
    mads_mt: float = Field(
        3.0,
        gt=0,
        description="MADs above the sample's median beyond which the percentage of "
        "mitochondrial counts is an outlier (scuttle, sc-best-practices: 3).",
    )
    min_outlier_pct_mt: float = Field(
        5.0,
        ge=0,
        le=100,
        description="No cell with a smaller percentage is a mitochondrial outlier: 5 % is the "
        "strictest limit in common use (Osorio & Cai 2021).",
    )
    doublets: bool = Field(
        True, description="Whether scrublet looks for doublets (Wolock et al. 2019)."
    )
    doublet_max_rate: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Highest plausible share of doublets: where scrublet's threshold implies "
        "more, none is called (24 % in a 10x lane of 30,000 cells, 10x Genomics).",
    )
    doublet_min_cells: int = Field(
        100,
        ge=50,
        description="Samples with fewer cells are not searched for doublets: the two modes of "
        "the scores do not separate (own choice).",
    )
    doublet_max_cells: int = Field(
        30_000,
        ge=50,
        description="Samples with more cells are not searched: they are not one library (most "
        "cells of a 10x lane, 10x Genomics). Memory grows by 0.2 to 0.5 MB per cell.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the simulated doublets.")
