"""Tensors in files without pickle: one safetensors file, written atomically, verified when read."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import atomic_path

logger = logging.getLogger(__name__)

# One key only: safetensors writes several in random order, and equal content must give equal bytes.
STATE = "state"


def write_tensors(tensors: Mapping[str, Tensor], state: Any, path: Path) -> None:
    """Write named tensors and a JSON value atomically into one file."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Keys stay in order: what a resumed run writes must not differ from what an unbroken one does.
    text = json.dumps({"sha256": digest_tensors(flat), "value": state})
    with atomic_path(path) as temporary:
        save_file(flat, temporary, metadata={STATE: text})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write_tensors` wrote. Raises `IntegrityError` where the bytes were changed."""
    try:
        with safe_open(path, framework="pt") as file:
            # A safetensors file is no mapping: it has keys, but no iterator.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = json.loads((file.metadata() or {})[STATE])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path}: not a readable model file ({error}).") from None
    if digest_tensors(tensors) != state["sha256"]:
        raise IntegrityError(f"{path}: its weights are not those that were written. Restore it.")
    return tensors, state["value"]


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes. Safetensors itself notices no flipped bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], place: str) -> None:
    """Load named weights; another shape or name is a `ModelError`."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelError(f"{place}: weights do not fit the architecture ({error}).") from None


def pick(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors under `part/`, without that prefix."""
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def name_part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors under the prefix `part/`."""
    return {f"{part}/{name}": tensor for name, tensor in tensors.items()}


def name_parts(parts: nn.ModuleDict, prefix: str = "") -> dict[str, Tensor]:
    """All weights of several modules, each under `<prefix><name>/`."""
    named = [name_part(part.state_dict(), f"{prefix}{name}") for name, part in parts.items()]
    return {name: tensor for part in named for name, tensor in part.items()}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, `<parameter>/<moment>`."""
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `pack_optimizer` took."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # Fused kernels take for granted that a moment lies in memory as its parameter does.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
