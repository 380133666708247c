"""Stochastic depth whose coin flips are keyed by sample, so that they do not depend on the process that draws them.

DINO flips a coin for each sample and branch; DINOv2 computes a branch for a fixed share of the batch only, which saves the rest's time.

L residual branches that may be dropped, V views, B samples, G loss groups of N samples, S crops that a branch is computed for.
"""

from collections.abc import Sequence

import numpy as np
import timm.layers
import torch
from numpy import typing as npt
from timm.models import vision_transformer
from torch import nn

from patho_trainer import errors, keyed


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


class SubsetBlock(vision_transformer.Block):  # type: ignore[misc]  # timm has no types
    """timm's block; with `kept` (2, S) each of its two branches is computed for and added to these rows of the batch only."""

    def forward(self, x: torch.Tensor, kept_2S: torch.Tensor | None = None) -> torch.Tensor:
        if kept_2S is None:
            whole: torch.Tensor = super().forward(x)
            return whole
        for rows, branch in zip(kept_2S, (self._attend, self._think), strict=True):
            residual = branch(x[rows])
            # the mean over the batch stays: source facebookresearch/dinov2, as are the subsets
            x = x.index_add(0, rows, residual.to(x.dtype), alpha=len(x) / len(rows))
        return x

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.ls1(self.attn(self.norm1(x)))
        return out

    def _think(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.ls2(self.mlp(self.norm2(x)))
        return out


def adopt_subsets(backbone: vision_transformer.VisionTransformer, architecture: str) -> None:
    """Make the blocks of `backbone` SubsetBlocks, in place. Raises InvalidConfiguration where they are not timm's plain ones."""
    for block in backbone.blocks:
        if type(block) is not vision_transformer.Block:
            raise errors.InvalidConfiguration(
                f"model.architecture: {architecture} has blocks of another kind than DINOv2's ({type(block).__name__}): use DINO, or a "
                "plain vision transformer such as vit_large_patch14_reg4_dinov2"
            )
        block.__class__ = SubsetBlock  # the weights stay where pretrained files and sharding look for them


def subsets(
    rate: float, branches: int, seed: int, step: int, slots: Sequence[int], members_GN: npt.NDArray[np.int64], views: range
) -> torch.Tensor:
    """Rows (L, S), ascending, of a batch of `views` times the samples `slots`, view by view, that each branch is computed for.

    Of the V N crops of a loss group (the batch on one GPU of the reference) a share `rate` is left out, rounded up, but never all.
    """
    uniform_VBL = np.stack([keyed.uniform(seed, step, slots, keyed.DROP_PATH + view, branches) for view in views])
    uniform_LGVN = uniform_VBL[:, members_GN].transpose(3, 1, 0, 2)
    rows_GVN = members_GN[:, None] + len(slots) * np.arange(len(views))[:, None]
    crops = len(views) * members_GN.shape[1]
    chosen_LGS = np.argsort(uniform_LGVN.reshape(branches, len(members_GN), crops), kind="stable")[..., : max(int(crops * (1 - rate)), 1)]
    rows_LGS = np.take_along_axis(rows_GVN.reshape(1, len(members_GN), crops), chosen_LGS, axis=2)
    return torch.from_numpy(np.sort(rows_LGS.reshape(branches, -1)))
