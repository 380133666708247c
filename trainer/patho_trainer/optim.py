"""AdamW with the references' parameter groups and per-parameter gradient clipping."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from patho_trainer import config, distributed, schedules


def adamw(student: nn.Module, hyperparameters: config.Hyperparameters) -> torch.optim.AdamW:
    """AdamW (torch's betas and epsilon, as in the references) over the student's groups; `apply` sets rate and decay each step."""
    return torch.optim.AdamW(parameter_groups(student, hyperparameters), lr=0.0)


def parameter_groups(student: nn.Module, hyperparameters: config.Hyperparameters) -> list[dict[str, Any]]:
    """Trainable parameters grouped by weight decay and learning-rate factor.

    No decay on biases and 1-D parameters (norms, layer scale). A group has `params`, their `names`, `decay` (0 or 1) and
    `learning_rate_factor`. Without layer decay these are the two groups of facebookresearch/dino: decayed first.
    """
    depth = 1 + max((int(i) for name, _ in student.named_parameters() for i in re.findall(r"\bblocks\.(\d+)\.", name)), default=-1)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if name.endswith(".bias") or parameter.ndim == 1 else 1.0
        factor = learning_rate_factor(name, depth, hyperparameters.layer_decay, hyperparameters.patch_embed_lr_multiplier)
        new = {"params": [], "names": [], "decay": decay, "learning_rate_factor": factor}
        group = groups.setdefault((-decay, factor), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def learning_rate_factor(name: str, depth: int, layer_decay: float, patch_embed_multiplier: float) -> float:
    """Factor of a parameter: `layer_decay` to the number of layers above it, embeddings at the bottom, head and last norm at 1.

    Source: facebookresearch/dinov2, layer-wise decay and the slower patch embedding.
    """
    block = re.search(r"\bblocks\.(\d+)\.", name)
    if block:
        layer = int(block[1]) + 1
    elif re.search(r"\b(pos_embed|patch_embed|cls_token|reg_token|mask_token)\b", name):
        layer = 0
    else:
        layer = depth + 1
    return layer_decay ** (depth + 1 - layer) * (patch_embed_multiplier if "patch_embed" in name else 1.0)


def apply(values: schedules.Values, optimizer: torch.optim.Optimizer) -> None:
    """Write a step's learning rate and weight decay into the groups."""
    for group in optimizer.param_groups:
        group["lr"] = values.learning_rate * group["learning_rate_factor"]
        group["weight_decay"] = values.weight_decay * group["decay"]


@torch.no_grad()
def clip_per_parameter(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale each gradient on its own to a norm of at most `max_norm` (0: leave them), as facebookresearch/dino does.

    Returns the norm of the whole gradient before clipping, a scalar on the gradients' device: nothing waits for the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = distributed.norms(gradients)
    if max_norm > 0:
        for gradient, factor in zip(gradients, (max_norm / (norms + 1e-6)).clamp(max=1.0), strict=True):
            distributed.local(gradient).mul_(factor)
    total: torch.Tensor = torch.linalg.vector_norm(norms)
    return total


def freeze_last_layer(student: nn.Module) -> None:
    """Drop the gradients of the prototypes, so that the optimizer leaves them (and their decay) alone this step."""
    for name, parameter in student.named_parameters():
        if "last_layer" in name:
            parameter.grad = None
