"""Settings of `pretrain`, the network's architecture among them."""

import dataclasses
from typing import Any, Literal

from pydantic import Field, create_model, field_validator

from tabatlas import names
from tabatlas.settings import StageSettings
from tabatlas.tabnet.architecture import PRESETS, Architecture
from tabatlas.train.settings import CovariateSettings, TrainingSettings


def describe_knob(knob: dataclasses.Field) -> dict[str, Any]:
    """Limits and meaning of a knob of the network, and what each preset gives it."""
    given = {name: getattr(preset, knob.name) for name, preset in PRESETS.items()}
    presets = ", ".join(f"{name}: {value}" for name, value in given.items())
    meaning = f"{knob.metadata['description']} null: as the preset ({presets})."
    return {**knob.metadata, "description": meaning}


# The network declares its knobs itself (it must import without pydantic); here each becomes an
# optional setting, so that a config names only what differs from the preset.
ArchitectureSettings = create_model(
    "ArchitectureSettings",
    __base__=StageSettings,
    __doc__="Knobs of the network that differ from the preset.",
    **{
        knob.name: (knob.type | None, Field(None, **describe_knob(knob)))
        for knob in dataclasses.fields(Architecture)
    },
)


class PretrainSettings(TrainingSettings):
    """How the encoder learns to predict hidden genes."""

    preset: Literal["small", "paper", "sctab"] = Field(
        "small", description="Architecture to start from; see `tabatlas.tabnet.architecture`."
    )
    architecture: ArchitectureSettings = ArchitectureSettings()
    pretraining_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of genes hidden per cell (Arik & Pfister 2021, self-supervised task).",
    )
    covariates: tuple[CovariateSettings, ...] = Field(
        (),
        description="Columns that the network knows beside the genes, such as "
        "{column: assay, as: input, width: 4}; `as: condition` is not selected by the masks. "
        f"Columns: {', '.join(names.COVARIATES)}.",
    )
    lambda_sparse: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="Weight of the masks' entropy in the loss (Arik & Pfister 2021).",
    )

    @field_validator("covariates")
    @classmethod
    def refuse_repeats(
        cls, covariates: tuple[CovariateSettings, ...]
    ) -> tuple[CovariateSettings, ...]:
        """Each column once."""
        columns = [one.column for one in covariates]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"`{column}` stands there twice; keep one of them")
        return covariates

    def choose_architecture(self) -> Architecture:
        """The preset with the knobs that the config names."""
        named = self.architecture.model_dump(exclude_none=True)
        return dataclasses.replace(PRESETS[self.preset], **named)
