"""Settings of `ingest`."""

from pydantic import Field

from tabatlas.settings import StageSettings


class IngestSettings(StageSettings):
    """Where the experiment lives, what it holds and how much of it is in memory at once."""

    uri: str | None = Field(
        None,
        pattern=r"^(/|[a-z][a-z0-9]*://)",
        description="Folder of the experiments: absolute path or `s3://bucket/prefix`; "
        "null: in the results.",
    )
    normalized: bool = Field(
        False, description="Also store log1p(counts per 10⁴); loaders compute it themselves."
    )
    block_entries: int = Field(
        8_388_608,
        ge=1,
        description="Counts written at once; each takes about 30 bytes of memory.",
    )
