"""AdamW with the references' parameter groups, clipping and freezing."""

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

    No decay on biases and 1-D parameters (norms, layer scale). A group has `params`, their `names`, `decay` (0 or 1),
    `learning_rate_factor`, and `frozen_by_rate` for the prototypes of DINOv2. Without layer decay DINO has the two groups of
    facebookresearch/dino: decayed first.
    """
    depth = 1 + max((int(i) for name, _ in student.named_parameters() for i in re.findall(r"\bblocks\.(\d+)\.", name)), default=-1)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if name.endswith(".bias") or parameter.ndim == 1 else 1.0
        factor = learning_rate_factor(name, depth, hyperparameters.layer_decay, hyperparameters.patch_embed_lr_multiplier)
        frozen_by_rate = hyperparameters.method == "DINOv2" and "last_layer" in name
        new = {"params": [], "names": [], "decay": decay, "learning_rate_factor": factor, "frozen_by_rate": frozen_by_rate}
        group = groups.setdefault((-decay, factor, frozen_by_rate), new)
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
    """Write a step's learning rate and weight decay into the groups; DINOv2's frozen prototypes get none, but their moments go on."""
    for group in optimizer.param_groups:
        frozen = values.freeze_last_layer and group["frozen_by_rate"]
        group["lr"] = 0.0 if frozen else values.learning_rate * group["learning_rate_factor"]
        group["weight_decay"] = values.weight_decay * group["decay"]


def clip(student: nn.Module, hyperparameters: config.Hyperparameters) -> torch.Tensor:
    """Clip the gradients as the method's reference does. Returns the norm of the whole gradient before clipping."""
    h = hyperparameters
    if h.method == "DINO":
        return clip_per_parameter(student.parameters(), h.clip_grad)
    return clip_per_network(student, h.clip_grad)


@torch.no_grad()
def clip_per_network(student: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale the gradients of the backbone (with the mask token) and of each head to a norm of at most `max_norm` (0: leave them), as
    facebookresearch/dinov2 does.

    Returns the norm of the whole gradient before clipping, a scalar on the gradients' device: nothing waits for the device.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            head = re.match(r"\w+_head\.", name)
            parts.setdefault(head[0] if head else "backbone", []).append(parameter.grad)
    norms = {part: torch.linalg.vector_norm(distributed.norms(gradients)) for part, gradients in parts.items()}
    if max_norm > 0:
        for part, gradients in parts.items():
            torch._foreach_mul_([distributed.local(g) for g in gradients], (max_norm / (norms[part] + 1e-6)).clamp(max=1.0))
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    return total


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
    """Drop the gradients of the prototypes, so that the optimizer leaves them (and their decay, and moments) alone this step: DINO."""
    for name, parameter in student.named_parameters():
        if "last_layer" in name:
            parameter.grad = None
