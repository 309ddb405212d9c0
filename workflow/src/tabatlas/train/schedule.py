"""AdamW with decay where it belongs, and a learning rate that is a pure function of the step."""

import inspect
import math

import torch
from torch import nn


class AdamW(torch.optim.AdamW):
    """torch's own, without its wrappers: they import the compiler, more than a second per start."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW; only weight matrices decay, and of those no embeddings.

    Decay of a mask's normalisation gain would couple the decay to the mask's sparsity; decay of an
    embedding would pull rare levels to zero.
    """
    embeddings = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    decayed, plain = [], []
    for parameter in model.parameters():
        is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate, fused=True)


def scale_rate(step: int, n_steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step`: a linear rise, then a cosine to zero."""
    n_warmup = math.ceil(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))
