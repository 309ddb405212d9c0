"""Tensors in files without pickle: one safetensors file, written atomically, verified when read.

The last 32 bytes of a file are the sha256 of all bytes before them; to safetensors they are a
tensor of their own, because the format allows nothing behind the tensors.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import atomic_path, digest_file

# Names of safetensors' format.
TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SHA = "sha256"
N_SHA = hashlib.sha256().digest_size


def write_tensors(
    tensors: Mapping[str, Tensor], state: Any, path: Path, check: Callable[[], None] = lambda: None
) -> None:
    """Write named tensors and a JSON value atomically into one file.

    It takes its name after it was read back from the disk and found good, and after `check`.
    Equal content gives equal bytes. After an `OSError` what stood under the name still does.
    """
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            written = hashlib.sha256()
            for part in list_parts(tensors, state):
                written.update(part)
                file.write(part)
            file.write(written.digest())
            written.update(written.digest())
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # else what is read back is only what memory holds
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if digest_file(temporary) != written.hexdigest():
            raise OSError(errno.EIO, "the disk gave back other bytes than were written", str(path))
        check()


def list_parts(tensors: Mapping[str, Tensor], state: Any) -> Iterator[bytes | memoryview]:
    """The file's bytes without the hash: length of the header, header, tensors one by one."""
    # Wide types first, so that each tensor lies at a multiple of its type's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    # Its keys stay in order: what a resumed run writes must not differ from what an unbroken does.
    header: dict[str, Any] = {"__metadata__": {"state": json.dumps(state)}}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": TYPES[tensors[name].dtype],
            "shape": shape,
            "data_offsets": [start, end],
        }
    assert SHA not in tensors
    header[SHA] = {"dtype": "U8", "shape": [N_SHA], "data_offsets": [end, end + N_SHA]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield view_bytes(tensors[name])


def view_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, in the order of its elements."""
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data


def is_whole(content: bytes) -> bool:
    """Whether a file's last bytes are the hash of all before them."""
    return hashlib.sha256(memoryview(content)[:-N_SHA]).digest() == content[-N_SHA:]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write_tensors` wrote. Raises `IntegrityError` where the bytes were changed."""
    try:
        content = path.read_bytes()
        if not is_whole(content):
            raise ValueError("its bytes are not those that were written")
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        state = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])
        del tensors[SHA]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path}: not a readable model file ({error}). Restore it.") from None
    return tensors, state


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes. Safetensors itself notices no flipped bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(view_bytes(tensor))
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
