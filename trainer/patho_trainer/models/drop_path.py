"""Stochastic depth whose coin flips are keyed by sample, so that they do not depend on the process that draws them.

L residual branches that may be dropped, V views, B samples.
"""

from collections.abc import Sequence

import numpy as np
import timm.layers
import torch
from torch import nn

from patho_trainer import keyed


class DropPath(nn.Module):
    """Scales each sample of a residual branch by `scale_B`, which the forward pass sets before the block runs; None keeps all."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.scale_B: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale_B is None:
            return x
        return x * self.scale_B.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def adopt(model: nn.Module) -> list[DropPath]:
    """Put ours in the place of every timm DropPath of `model`, in place; returns them in the order of the model's modules."""
    found = [(name, module.drop_prob) for name, module in model.named_modules() if isinstance(module, timm.layers.DropPath)]
    ours = []
    for name, rate in found:
        parent, _, child = name.rpartition(".")
        ours.append(DropPath(float(rate)))
        setattr(model.get_submodule(parent), child, ours[-1])
    return ours


def scales(rates: Sequence[float], seed: int, step: int, slots: Sequence[int], views: int) -> torch.Tensor:
    """Scales (L, V, B), float32: 0 with probability `rate`, else 1 / (1 - rate), so that the mean stays. Source: arXiv 1603.09382."""
    uniform_VBL = np.stack([keyed.uniform(seed, step, slots, keyed.DROP_PATH + view, len(rates)) for view in range(views)])
    keep_L = 1.0 - np.asarray(rates)
    return torch.from_numpy(np.where(uniform_VBL < keep_L, 1.0 / keep_L, 0.0).astype(np.float32)).permute(2, 0, 1).contiguous()
