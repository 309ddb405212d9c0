"""What the demo atlas holds: its datasets, cell types, donors and perturbations."""

from dataclasses import dataclass
from typing import Literal

from tabatlas.errors import UsageError
from tabatlas.names import NOT_APPLICABLE, PERTURBATION_DELIMITER
from tabatlas.simulate.markers import TARGETS

ORGANISM = "Homo sapiens"


@dataclass(frozen=True)
class DatasetDesign:
    """One dataset. `depth` is the median number of molecules per cell, `share` that of all cells.

    `unmeasured` is the share of the genes that the file lacks. Donors are people of `collection`:
    equal names in two collections are two people.
    """

    name: str
    collection: str
    share: float
    assay: str
    depth: float
    n_batches: int
    donors: tuple[str, ...]
    diseased: tuple[str, ...] = ()
    unmeasured: float = 0.0
    is_screen: bool = False
    gene_names: Literal["symbol", "ensembl", "versioned ensembl"] = "symbol"
    counts_place: Literal["X", "layers", "raw"] = "X"

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the libraries. Each pools all donors of the dataset."""
        return tuple(f"{self.name}_library{number + 1}" for number in range(self.n_batches))


def number_people(first: int, last: int) -> tuple[str, ...]:
    """Donor names P01, P02, …"""
    return tuple(f"P{number:02}" for number in range(first, last + 1))


DATASETS = {
    design.name: design
    for design in (
        DatasetDesign(
            name="demo_a",
            collection="demo_ab",
            share=0.24,
            assay="10x 3' v2",
            depth=2000,
            n_batches=2,
            donors=number_people(1, 8),
            diseased=number_people(1, 4),
        ),
        DatasetDesign(
            name="demo_b",
            collection="demo_ab",
            share=0.19,
            assay="10x 5' v2",
            depth=2800,
            n_batches=2,
            donors=number_people(8, 13),  # P08 was in demo_a too
            unmeasured=0.3,
            gene_names="ensembl",
            counts_place="layers",
        ),
        DatasetDesign(
            name="demo_c",
            collection="demo_c",
            share=0.21,
            assay="10x 3' v3",
            depth=3200,
            n_batches=3,
            donors=number_people(1, 7),
            diseased=number_people(5, 7),
            gene_names="versioned ensembl",
            counts_place="raw",
        ),
        DatasetDesign(
            name="demo_screen",
            collection="demo_screen",
            share=0.36,
            assay="10x 3' v3",
            depth=3800,
            n_batches=2,
            donors=("K-562",),
            is_screen=True,
            gene_names="ensembl",
        ),
    )
}


def find_design(name: str) -> DatasetDesign:
    """The dataset of that name. Raises `UsageError` for a name that the demo atlas lacks."""
    if name not in DATASETS:
        raise UsageError(f"--dataset {name}: the demo atlas has {', '.join(DATASETS)}.")
    return DATASETS[name]


@dataclass(frozen=True)
class TreeNode:
    """A node of the tree of cell types: what sets it apart from its parent.

    `share` of all genes differ by a normal log fold change of deviation `spread`; its markers are
    raised by about `marker_rise` (natural log).
    """

    parent: str | None
    share: float
    spread: float
    marker_rise: float


TREE = {
    "lymphocyte": TreeNode(None, 0.60, 0.9, 1.2),
    "mononuclear phagocyte": TreeNode(None, 0.60, 0.9, 1.8),
    "T cell": TreeNode("lymphocyte", 0.35, 0.7, 1.5),
    "lymphocyte of B lineage": TreeNode("lymphocyte", 0.40, 0.8, 1.8),
    "monocyte": TreeNode("mononuclear phagocyte", 0.30, 0.6, 1.2),
    "CD4-positive, alpha-beta T cell": TreeNode("T cell", 0.05, 0.30, 0.7),
    "CD8-positive, alpha-beta T cell": TreeNode("T cell", 0.05, 0.30, 0.7),
    "natural killer cell": TreeNode("lymphocyte", 0.35, 0.7, 1.6),
    "B cell": TreeNode("lymphocyte of B lineage", 0.15, 0.5, 1.2),
    "plasmablast": TreeNode("lymphocyte of B lineage", 0.30, 0.7, 1.8),
    "classical monocyte": TreeNode("monocyte", 0.06, 0.30, 1.1),
    "non-classical monocyte": TreeNode("monocyte", 0.06, 0.30, 1.1),
    "conventional dendritic cell": TreeNode("mononuclear phagocyte", 0.25, 0.6, 1.4),
}


@dataclass(frozen=True)
class CellType:
    """A leaf of the tree: its term, its mean frequency in blood, its response to interferon."""

    term: str
    frequency: float
    response: float


CELL_TYPES = {
    "CD4-positive, alpha-beta T cell": CellType("CL:0000624", 0.33, 0.6),
    "CD8-positive, alpha-beta T cell": CellType("CL:0000625", 0.18, 0.6),
    "natural killer cell": CellType("CL:0000623", 0.10, 0.7),
    "B cell": CellType("CL:0000236", 0.12, 0.8),
    "plasmablast": CellType("CL:0000980", 0.03, 0.4),
    "classical monocyte": CellType("CL:0000860", 0.14, 1.2),
    "non-classical monocyte": CellType("CL:0000875", 0.06, 1.2),
    "conventional dendritic cell": CellType("CL:0000990", 0.04, 1.0),
}

ASSAYS = {"10x 3' v2": "EFO:0009899", "10x 3' v3": "EFO:0009922", "10x 5' v2": "EFO:0009900"}
DISEASES = {"normal": "PATO:0000461", "systemic lupus erythematosus": "MONDO:0007915"}
NORMAL, LUPUS = DISEASES
BLOOD = ("blood", "UBERON:0000178")
CELL_LINE = ("K-562", "CVCL_0004")

SINGLES = tuple(TARGETS.split())
# How a pair departs from the sum of its two effects; which pair does how is our choice.
INTERACTIONS = {
    ("AHR", "KLF1"): "additive",
    ("BAK1", "CDKN1C"): "additive",
    ("CEBPA", "KLF1"): "suppressive",
    ("CEBPB", "CEBPE"): "suppressive",
    ("CDKN1A", "DUSP9"): "additive",
    ("DUSP9", "MAPK1"): "neomorphic",
    ("ETS2", "PRDM1"): "additive",
    ("FOSB", "UBASH3B"): "synergistic",
    ("FOXA1", "HNF4A"): "additive",
    ("IRF1", "SET"): "synergistic",
}


def join_targets(*targets: str) -> str:
    """The id of a perturbation, as the CELLxGENE schema 7.1 joins several targets."""
    return PERTURBATION_DELIMITER.join(sorted(targets))


PERTURBATIONS = (
    NOT_APPLICABLE,
    *SINGLES,
    *(join_targets(*pair) for pair in INTERACTIONS),
)
