"""The teacher as an exponential moving average of the student."""

import torch
from torch import nn

from patho_trainer import distributed


@torch.no_grad()
def update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- m teacher + (1 - m) student for every parameter, heads included; students are equal or
    sharded alike, so that nothing is communicated."""
    for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
        distributed.local(mine).mul_(momentum).add_(distributed.local(other) * (1 - momentum))
