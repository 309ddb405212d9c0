"""Settings of `normalize`."""

from pydantic import Field

from tabatlas.names import PROTEIN_CODING
from tabatlas.settings import StageSettings


class NormalizeSettings(StageSettings):
    """Which genes make up the atlas."""

    genes: str = Field(
        PROTEIN_CODING,
        min_length=1,
        description="The atlas's genes: `protein_coding` (all of GENCODE, in genome order, as "
        "scTab), or the path of a file with an Ensembl id or symbol per line, whose order holds.",
    )
