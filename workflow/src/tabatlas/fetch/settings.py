"""Settings of `fetch`: what a row of the dataset table says, and what holds for all rows."""

import re
from typing import Literal

from pydantic import Field, field_validator

from tabatlas.settings import StageSettings

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
SIMULATED = "simulate:"
REMOTE = ("http://", "https://")


class Constant(StageSettings):
    """A value that holds for every cell of a dataset, in place of a column."""

    constant: str = Field(min_length=1, description="The value.")


Column = str | Constant | None


class DatasetRow(StageSettings):
    """One dataset: a row of `datasets.tsv`. A column that is not named is looked for."""

    dataset_id: str = Field(
        pattern=PLAIN_NAME,
        description="Plain name of the dataset: letters, digits, `_`, `.`, `-`; it names files.",
    )
    path: str = Field(
        min_length=1, description="Path, http(s) URL, or `simulate:NAME` of the demo atlas."
    )
    collection: str | None = Field(
        None,
        description="Study; donors are (collection, donor). Default: the dataset itself.",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Digest that the file must have."
    )
    organism: Literal["Homo sapiens", "Mus musculus"] = Field(
        "Homo sapiens",
        description="Species, which decides the gene table: `Homo sapiens` or `Mus musculus`.",
    )
    counts: str | None = Field(
        None,
        min_length=1,
        description="Place of the raw counts: `X`, `raw/X` or a layer. Default: looked for.",
    )
    gene_id: str | None = Field(
        None,
        min_length=1,
        description="Column of var with gene ids or symbols, or `index`. Default: best one.",
    )
    donor: Column = Field(None, description="Column of the donor. Default: `donor_id` if there.")
    batch: Column = Field(
        None, description="Column of the library. Default: `batch`, else the donor."
    )
    cell_type: Column = Field(
        None,
        description="Column of the label. Default: `cell_type_ontology_term_id`, `cell_type`.",
    )
    assay: Column = Field(None, description="Column of the assay. Default: `assay` if there.")
    disease: Column = Field(None, description="Column of the disease. Default: `disease` if there.")
    tissue: Column = Field(None, description="Column of the tissue. Default: `tissue` if there.")
    perturbation: Column = Field(
        None,
        description="Column of the perturbed genes. Default: `genetic_perturbation_id` if there.",
    )

    @property
    def is_remote(self) -> bool:
        """Whether the file has to be downloaded."""
        return self.path.startswith(REMOTE)

    @property
    def simulated(self) -> str | None:
        """Name of the demo dataset to simulate, or None."""
        return self.path.removeprefix(SIMULATED) if self.path.startswith(SIMULATED) else None

    @field_validator("path")
    @classmethod
    def refuse_other_schemes(cls, value: str) -> str:
        """A URL of another kind would be taken for a local path."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value) and not value.startswith(REMOTE):
            raise ValueError("only http:// and https:// URLs can be fetched; download it yourself")
        return value


class FetchSettings(StageSettings):
    """What holds for every dataset of the atlas."""

    cell_types: dict[str, str | None] = Field(
        default_factory=dict,
        description="Authors' label → Cell Ontology id; null makes cells of a label unlabelled.",
    )
    control_labels: tuple[str, ...] = Field(
        ("control", "ctrl", "non-targeting", "NT"),
        description="Values of the perturbation column that mean an unperturbed control.",
    )
    min_mapped_genes: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Least share of a file's genes that must be known; below it the gene ids or "
        "the organism are taken to be wrong.",
    )

    @field_validator("cell_types")
    @classmethod
    def refuse_wrong_terms(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        """A term has the form CL:0000000; whether it exists is checked where labels are mapped."""
        for label, term in value.items():
            if term is not None and not re.fullmatch(r"CL:\d{7}", term):
                raise ValueError(f"`{label}: {term}` is no Cell Ontology id such as CL:0000236")
        return value
