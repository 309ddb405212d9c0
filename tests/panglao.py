"""Known markers of blood cells from PanglaoDB, as `explain.markers` takes them."""

from pathlib import Path

import pandas as pd

REFERENCE = Path("ref") / "PanglaoDB_markers_27_Mar_2020.tsv"
# PanglaoDB's name of a type → the Cell Ontology terms of the two studies that it speaks of.
TERMS = {
    "B cells": ("CL:0000236",),
    "NK cells": ("CL:0000623",),
    "Monocytes": ("CL:0000860", "CL:0000875"),
    "Dendritic cells": ("CL:0000451",),
    "Plasmacytoid dendritic cells": ("CL:0000784",),
    "Platelets": ("CL:0000233",),
    "T helper cells": ("CL:0000895", "CL:0000897"),
    "T memory cells": ("CL:0000897",),
    "T cytotoxic cells": ("CL:0000625",),
    "T cells": ("CL:0000895", "CL:0000897", "CL:0000625", "CL:0000084"),
    "Erythroid-like and erythroid precursor cells": ("CL:0000232",),
}


def write_markers(reference: Path, path: Path) -> None:
    """Write the human markers of these types as a table of `cell_type` and `gene`."""
    table = pd.read_csv(reference, sep="\t", dtype=str, keep_default_na=False)
    human = table[table["species"].str.contains("Hs")]
    rows = [
        (term, symbol)
        for name, symbol in zip(human["cell type"], human["official gene symbol"], strict=True)
        for term in TERMS.get(name, ())
    ]
    pd.DataFrame(rows, columns=["cell_type", "gene"]).drop_duplicates().to_csv(
        path, sep="\t", index=False
    )
