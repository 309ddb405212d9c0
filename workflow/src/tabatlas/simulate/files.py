"""The two files of a dataset: the user's h5ad, and the truth beside it."""

import anndata as ad
import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.simulate.cells import PERTURBATION
from tabatlas.simulate.dataset import SimulatedDataset
from tabatlas.simulate.design import (
    ASSAYS,
    BLOOD,
    CELL_LINE,
    CELL_TYPES,
    DISEASES,
    INTERACTIONS,
    LUPUS,
    NORMAL,
    ORGANISM,
    DatasetDesign,
    join_targets,
)
from tabatlas.simulate.draws import named_generator

SCREEN_STRATEGY = "CRISPR activation screen"
# A gene marks a type where its program raises it by more than this (natural log: 2.7 times).
MARKER_RISE = 1.0


def build_source(dataset: SimulatedDataset, seed: int) -> ad.AnnData:
    """The dataset as its authors would publish it: their gene names, their place of the counts."""
    obs = describe_cells(dataset, seed)
    var = name_genes(dataset.genes, dataset.design, seed)
    counts, place = dataset.counts, dataset.design.counts_place
    source = ad.AnnData(counts, obs=obs, var=var, uns={names.ORGANISM: ORGANISM})
    if place == "layers":
        source.layers["counts"] = counts
    elif place == "raw":
        source.raw = source
    if place != "X":
        source.X = log1p_cp10k(counts, np.asarray(counts.sum(axis=1)).ravel())
    return source


def describe_cells(dataset: SimulatedDataset, seed: int) -> pd.DataFrame:
    """The obs of the user's file: CELLxGENE 7.1 columns, index barcode."""
    design, cells = dataset.design, dataset.cells
    is_diseased = cells[names.DONOR_ID].isin(design.diseased)
    disease = pd.Series(np.where(is_diseased, LUPUS, NORMAL), cells.index)
    tissue, tissue_id = CELL_LINE if design.is_screen else BLOOD
    terms = {name: kind.term for name, kind in CELL_TYPES.items()}
    columns = {
        names.DONOR_ID: cells[names.DONOR_ID],
        names.BATCH: cells[names.BATCH],
        names.CELL_TYPE: cells[names.CELL_TYPE],
        names.CELL_TYPE_ID: cells[names.CELL_TYPE].map(terms).fillna(names.UNKNOWN),
        names.ASSAY: design.assay,
        names.ASSAY_ID: ASSAYS[design.assay],
        names.DISEASE: disease,
        names.DISEASE_ID: disease.map(DISEASES),
        names.TISSUE: tissue,
        names.TISSUE_ID: tissue_id,
        "tissue_type": "cell line" if design.is_screen else "tissue",
    }
    if design.is_screen:  # the schema allows these columns only where something was perturbed
        is_control = cells[PERTURBATION] == names.NOT_APPLICABLE
        columns[names.PERTURBATION_ID] = cells[PERTURBATION]
        columns[names.PERTURBATION_STRATEGY] = np.where(is_control, names.CONTROL, SCREEN_STRATEGY)
    obs = pd.DataFrame(columns, index=cells.index).astype("category")
    obs[names.IS_PRIMARY_DATA] = True
    return obs.set_index(spell_barcodes(cells[names.BATCH], design, seed))


def spell_barcodes(batches: pd.Series, design: DatasetDesign, seed: int) -> pd.Index:
    """A 10x barcode per cell: 16 bases and the number of the library, no two alike."""
    # A product with an odd number is one-to-one modulo 4¹⁶.
    odd, start = named_generator(seed, "barcodes", design.name).integers(0, 2**31, 2) * 2 + 1
    numbers = (np.arange(len(batches), dtype=np.uint64) * np.uint64(odd) + np.uint64(start)) % 2**32
    digits = (numbers[:, None] >> np.arange(0, 32, 2, dtype=np.uint64)) & np.uint64(3)
    bases = np.array(list("ACGT"))[digits.astype(int)]
    libraries = [design.batches.index(batch) + 1 for batch in batches]
    barcodes = [f"{''.join(row)}-{n}" for row, n in zip(bases, libraries, strict=True)]
    return pd.Index(barcodes, name=names.BARCODE)


def name_genes(genes: pd.DataFrame, design: DatasetDesign, seed: int) -> pd.DataFrame:
    """The var of the user's file, its index in the dataset's own way of naming genes."""
    if design.gene_names == "symbol":
        return pd.DataFrame(index=pd.Index(genes.index, name="gene"))
    ids = genes[names.FEATURE_ID]
    if design.gene_names == "versioned ensembl":
        versions = named_generator(seed, "versions").integers(1, 20, len(ids)).astype(str)
        ids = ids + "." + versions
    symbols = genes.index.to_numpy()
    return pd.DataFrame({names.FEATURE_NAME: symbols}, index=pd.Index(ids, name="gene"))


def build_truth(dataset: SimulatedDataset, source: ad.AnnData) -> ad.AnnData:
    """What made the dataset, in the order of the cells and genes of its file; no X.

    varm: log fold changes of each program, genes × effects; obsm: activity of each module.
    """
    cells = dataset.cells.copy()
    texts = list(cells.select_dtypes(object))
    cells[texts] = cells[texts].astype("category")
    truth = ad.AnnData(
        obs=cells.set_index(source.obs_names),
        var=dataset.genes.rename_axis(names.FEATURE_NAME).reset_index().set_index(source.var_names),
        uns={"collection_id": dataset.design.collection},
    )
    for name, program in (dataset.effects | {"module": dataset.modules}).items():
        truth.varm[name] = program.set_index(truth.var_names)
    truth.obsm["module"] = pd.DataFrame(
        dataset.activities, truth.obs_names, dataset.modules.columns
    )
    if dataset.design.is_screen:
        truth.uns["interaction"] = {
            join_targets(*pair): kind for pair, kind in INTERACTIONS.items()
        }
    return truth


def list_markers(dataset: SimulatedDataset) -> pd.DataFrame:
    """The true markers, `cell_type` (term) and `gene` (Ensembl id), strongest first.

    A marker is a measured gene that a type's program raises by more than `MARKER_RISE` above the
    mean of all types. A screen, of one cell line, has none.
    """
    programs = dataset.effects.get(names.CELL_TYPE, pd.DataFrame())
    rows = [
        (CELL_TYPES[label].term, dataset.genes.loc[symbol, names.FEATURE_ID])
        for label, program in programs.items()
        for symbol in program[program > MARKER_RISE].sort_values(ascending=False).index
    ]
    return pd.DataFrame(rows, columns=[names.CELL_TYPE, "gene"])
