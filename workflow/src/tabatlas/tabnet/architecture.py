"""The network's knobs, each declared once with its limits, meaning and source."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal


def knob(default: Any, **limits: Any) -> Any:
    """A field with its default and, as metadata, what pydantic's `Field` takes: ge, le, …."""
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Architecture:
    """What the shape and the arithmetic of a TabNet depend on, besides its genes."""

    n_d: int = knob(32, ge=1, description="Width of a step's decision (Arik & Pfister 2021, N_d).")
    n_a: int = knob(32, ge=1, description="Width of a step's attention (Arik & Pfister 2021, N_a).")
    n_steps: int = knob(2, ge=1, le=10, description="Decision steps (Arik & Pfister 2021).")
    gamma: float = knob(
        1.3,
        ge=1,
        description="How freely a gene may be selected again in a later step: 1 = once, larger = "
        "more often (Arik & Pfister 2021, relaxation γ).",
    )
    n_shared: int = knob(
        2, ge=1, description="GLU layers shared by all steps (Arik & Pfister 2021, figure 4)."
    )
    n_independent: int = knob(
        2, ge=0, description="GLU layers of each step's own (Arik & Pfister 2021, figure 4)."
    )
    virtual_batch_size: int = knob(
        256,
        ge=4,
        description="Cells per chunk of ghost batch normalization, at most "
        "(Hoffer et al. 2017; Arik & Pfister 2021, B_V).",
    )
    momentum: float = knob(
        0.1,
        gt=0,
        le=1,
        description="Weight of a new minibatch in the running statistics: PyTorch's sense, "
        "1 - decay (Arik & Pfister 2021 give the decay, m_B).",
    )
    mask_type: Literal["sparsemax", "entmax"] = knob(
        "entmax",
        description="Projection that selects genes: sparsemax (Martins & Astudillo 2016) or "
        "entmax-1.5 (Peters et al. 2019), which selects more.",
    )
    scaling: Literal["deviation", "batchnorm"] = knob(
        "deviation",
        description="Genes are scaled by their standard deviation over the training cells, or by "
        "the paper's batch normalization, which blows up rarely expressed genes.",
    )
    scale_floor: float = knob(
        0.1,
        gt=0,
        description="Least standard deviation to divide by, in log1p(CP10k): keeps a rarely "
        "expressed gene from outweighing all others.",
    )


PRESETS: dict[str, Architecture] = {
    # Minutes on two CPU cores for some thousand cells and genes.
    "small": Architecture(),
    # The paper's network for Forest Cover Type; its decay m_B = 0.7 is a momentum of 0.3. Genes are
    # scaled as everywhere in this package: "batchnorm" would be the paper's.
    "paper": Architecture(
        n_d=64,
        n_a=64,
        n_steps=5,
        gamma=1.5,
        virtual_batch_size=512,
        momentum=0.3,
        mask_type="sparsemax",
    ),
    # The best model of Fischer et al. 2024 (scTab). Its momentum of 0.02 per chunk is 1 - 0.98⁸ =
    # 0.15 per minibatch of 8 chunks (2,048 cells).
    "sctab": Architecture(
        n_d=128,
        n_a=64,
        n_steps=1,
        n_shared=3,
        n_independent=5,
        virtual_batch_size=256,
        momentum=0.15,
    ),
}
