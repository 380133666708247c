"""timm's vision transformers as backbones, and the network of a student or a teacher.

V views (crops of one patch), B patches, D width, K prototypes, L residual branches.
"""

import difflib
import functools
import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import timm
import torch
from timm.models import vision_transformer
from torch import nn
from torch.nn import functional
from torch.utils import checkpoint

from patho_api import training as api
from patho_trainer import errors
from patho_trainer.models import drop_path as drop_paths

Backbone: TypeAlias = vision_transformer.VisionTransformer


def create(architecture: str, *, img_size_px: int | None = None, drop_path: float = 0.0, **options: Any) -> Backbone:
    """A timm ViT without classifier that takes any image size; `img_size_px` sets the grid of its position embedding.

    Raises InvalidConfiguration for a name that timm does not know or that is not a plain ViT.
    """
    name = architecture.partition(".")[0]
    if not timm.is_model(name):
        raise errors.InvalidConfiguration(f"model.architecture: timm has no model {architecture!r}{_similar(architecture)}")
    if timm.model_entrypoint(name).__module__ != vision_transformer.__name__:
        raise errors.InvalidConfiguration(
            f"model.architecture: {architecture} is not a plain vision transformer of timm: use one such as vit_small_patch16_224"
        )
    size = {} if img_size_px is None else {"img_size": img_size_px}
    return timm.create_model(architecture, num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path, **size, **options)


def _similar(architecture: str) -> str:
    close = difflib.get_close_matches(architecture, timm.list_models("vit_*"), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else "; `timm.list_models('vit_*')` lists what there is"


def check_crops(architecture: str, crops: api.Crops) -> None:
    """Raise InvalidConfiguration for an unknown architecture, or crops that its patches do not tile. Allocates no weights."""
    with torch.device("meta"):
        patch_px = create(architecture).patch_embed.patch_size[0]
    for field, size_px in (("globalSizePx", crops.global_size_px), ("localSizePx", crops.local_size_px)):
        if size_px % patch_px:
            near = max(patch_px, round(size_px / patch_px) * patch_px)
            raise errors.InvalidConfiguration(
                f"training.crops.{field}: {size_px} is not a multiple of {architecture}'s patch size {patch_px}: use {near}"
            )


class Network(nn.Module):
    """A backbone and its head; named as in the references' checkpoints (`backbone.`, `head.`)."""

    def __init__(self, backbone: Backbone, head: nn.Module, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.activation_checkpointing = activation_checkpointing
        drop_paths.adopt(backbone)

    @property
    def drop_rates(self) -> list[float]:
        """Rates of the L residual branches that may be dropped."""
        return [module.rate for module in self.backbone.modules() if isinstance(module, drop_paths.DropPath)]

    def forward(self, crops_VBCHW: Sequence[torch.Tensor], drop_scales_LVB: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (V B, K) of V crops, each (B, 3, size, size), crop by crop: one packed pass per run of equal sizes, one through the head.

        No view of them, whose hooks an in-place operation would lose: FSDP warns of it.
        """
        features = []
        for _, group in itertools.groupby(range(len(crops_VBCHW)), key=lambda view: crops_VBCHW[view].shape[-1]):
            views = list(group)
            scales = None if drop_scales_LVB is None else drop_scales_LVB[:, views[0] : views[-1] + 1].flatten(1)
            images = torch.cat([crops_VBCHW[view] for view in views])
            features.append(forward_features(self.backbone, images, scales, self.activation_checkpointing))
        logits: torch.Tensor = self.head(torch.cat(features))
        return logits

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, D) of images, as the exported backbone computes them; also where parameters are sharded."""
        features: torch.Tensor = self.backbone(images)
        return features


def forward_features(
    backbone: Backbone, images: torch.Tensor, drop_scales_LB: torch.Tensor | None = None, activation_checkpointing: bool = False
) -> torch.Tensor:
    """Pooled features (B, D) as `backbone(images)` computes them, with given drop-path scales.

    The loop over blocks is ours because scales must be set inside the checkpointed function: it runs again in the backward pass.
    """
    x = backbone.norm_pre(backbone.patch_drop(with_positions(backbone, backbone.patch_embed(images))))
    first = 0
    for block in backbone.blocks:
        paths = [module for module in block.modules() if isinstance(module, drop_paths.DropPath)]
        scales = None if drop_scales_LB is None else drop_scales_LB[first : first + len(paths)]
        first += len(paths)
        if activation_checkpointing and torch.is_grad_enabled():
            x = checkpoint.checkpoint(_run_block, block, paths, scales, x, use_reentrant=False)
        else:
            x = _run_block(block, paths, scales, x)
    features: torch.Tensor = backbone.forward_head(backbone.norm(x))
    return features


def with_positions(backbone: Backbone, x_BHWD: torch.Tensor) -> torch.Tensor:
    """Tokens (B, prefix + H W, D): prefix tokens before the patches, position embeddings added; equal to timm's `_pos_embed`.

    For crops with another grid than the embedding's, the table is resampled by a matrix product: the backward pass of an interpolation
    sums in no fixed order on a GPU, and `deterministic` would be refused there.
    """
    grid, wanted = tuple(backbone.patch_embed.grid_size), tuple(x_BHWD.shape[1:3])
    if backbone.pos_embed is None or grid == wanted:
        out: torch.Tensor = backbone._pos_embed(x_BHWD)
        return out
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    table_1TD, x_BTD = backbone.pos_embed, x_BHWD.flatten(1, 2)
    with torch.autocast(x_BHWD.device.type, enabled=False):
        resampled = resampling(grid, wanted, table_1TD.device) @ table_1TD[0, prefix:].float()
    positions = torch.cat([table_1TD[0, :prefix], resampled])
    before = [token.expand(len(x_BTD), -1, -1) for token in (backbone.cls_token, backbone.reg_token) if token is not None]
    before_sum, after_sum = ([*before, x_BTD], []) if not backbone.no_embed_class else ([x_BTD], before)
    tokens = torch.cat([*after_sum, torch.cat(before_sum, dim=1) + positions], dim=1)
    positioned: torch.Tensor = backbone.pos_drop(tokens)
    return positioned


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch gives it no types
def resampling(grid: tuple[int, int], wanted: tuple[int, int], device: torch.device) -> torch.Tensor:
    """The matrix (H W, T) of timm's bicubic resampling with antialias, from a table of T = h w positions to a grid (H, W)."""
    return _resampling(grid, wanted, device)


@functools.lru_cache(maxsize=8)
def _resampling(grid: tuple[int, int], wanted: tuple[int, int], device: torch.device) -> torch.Tensor:
    basis = torch.eye(grid[0] * grid[1]).view(-1, 1, *grid)
    return functional.interpolate(basis, size=wanted, mode="bicubic", antialias=True, align_corners=False).flatten(1).T.to(device)


def _run_block(block: nn.Module, paths: list[drop_paths.DropPath], scales: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    for i, path in enumerate(paths):
        path.scale_B = None if scales is None else scales[i]
    out: torch.Tensor = block(x)
    return out
