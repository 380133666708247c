"""The network of DINOv2: class tokens and masked tokens of a timm ViT through one or two projection heads.

V views (2 global + n local crops), B samples, T tokens of a global crop, M masked tokens, D width, K prototypes, S crops that a branch is
computed for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils import checkpoint

from patho_trainer import errors
from patho_trainer.models import drop_path, vit


class Outputs(NamedTuple):
    """What the losses are made of, as the network's layers gave it: FSDP wants no views, whose hooks an in-place operation would lose."""

    logits: torch.Tensor
    """Class tokens through the head, crop by crop (V B, K); where tokens have no head of their own, the chosen tokens after them."""
    own_token_logits: torch.Tensor | None
    """Chosen tokens of global crops through their own head, (M, K)."""
    features: torch.Tensor
    """Class tokens as they are, (V B, D)."""
    views: int

    @property
    def logits_VBK(self) -> torch.Tensor:
        """Class tokens through the head."""
        return self.logits[: len(self.features)].view(self.views, -1, self.logits.shape[-1])

    @property
    def token_logits_MK(self) -> torch.Tensor:
        """Chosen tokens of global crops through the head, or through their own."""
        return self.logits[len(self.features) :] if self.own_token_logits is None else self.own_token_logits

    @property
    def features_2BD(self) -> torch.Tensor:
        """Class tokens of the global crops, as they are."""
        return self.features.view(self.views, -1, self.features.shape[-1])[:2]


class MaskedNetwork(nn.Module):
    """A backbone, its heads and its mask token; heads are named as in facebookresearch/dinov2. Without `ibot_head` tokens share the other.

    The mask token is here and not in the backbone, whose weights are timm's and no more.
    """

    def __init__(
        self, backbone: vit.Backbone, dino_head: nn.Module, ibot_head: nn.Module | None, *, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.dino_head, self.ibot_head = backbone, dino_head, ibot_head
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.embed_dim))
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self,
        crops_VBCHW: Sequence[torch.Tensor],
        chosen_M: torch.Tensor,
        masks_CT: torch.Tensor | None = None,
        kept_LS: Sequence[torch.Tensor | None] = (None, None),
    ) -> Outputs:
        """`chosen_M` are the tokens to put through a head, numbered through all 2 B T of the global crops (2 B = C).

        `masks_CT` says where the mask token takes a patch's place (nowhere), `kept_LS` which crops each branch is computed for, of the
        global and of the local crops (all).
        """
        local = crops_VBCHW[2:]
        tokens = self.tokens(torch.cat(list(crops_VBCHW[:2])), masks_CT, kept_LS[0])
        patches_MD = tokens[:, self.backbone.num_prefix_tokens :].flatten(0, 1)[chosen_M]
        parts = [tokens[:, 0]]
        if local:
            parts.append(self.tokens(torch.cat(list(local)), None, kept_LS[1])[:, 0])
        features = torch.cat(parts)
        if self.ibot_head is None:
            return Outputs(self.dino_head(torch.cat([features, patches_MD])), None, features, len(crops_VBCHW))
        return Outputs(self.dino_head(features), self.ibot_head(patches_MD), features, len(crops_VBCHW))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, D) of images, as the exported backbone computes them; also where parameters are sharded."""
        features: torch.Tensor = self.backbone(images)
        return features

    def tokens(self, images: torch.Tensor, masks_CT: torch.Tensor | None = None, kept_LS: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised tokens (C, prefix + T, D) of images (C, 3, size, size)."""
        vit_ = self.backbone
        x = vit_.patch_embed(images)  # (C, H, W, D)
        if masks_CT is not None:
            x = torch.where(masks_CT.view(*x.shape[:3], 1), self.mask_token.to(x.dtype), x)
        x = vit_.norm_pre(vit_.patch_drop(vit.with_positions(vit_, x)))
        for i, block in enumerate(vit_.blocks):
            kept_2S = None if kept_LS is None else kept_LS[2 * i : 2 * i + 2]
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint.checkpoint(block, x, kept_2S, use_reentrant=False)
            else:
                x = block(x, kept_2S)
        out: torch.Tensor = vit_.norm(x)
        return out


def check(backbone: vit.Backbone, architecture: str) -> None:
    """Raises InvalidConfiguration for a backbone whose features are not its class token: DINOv2 trains that."""
    if backbone.cls_token is None or backbone.global_pool != "token":
        raise errors.InvalidConfiguration(
            f"model.architecture: {architecture} has no class token as its feature, and DINOv2 trains one: use a model such as "
            "vit_base_patch16_224 or vit_large_patch14_reg4_dinov2"
        )


def adopted(backbone: vit.Backbone, architecture: str) -> vit.Backbone:
    """The backbone with branches that can be computed for a part of the batch. Raises InvalidConfiguration for one that DINOv2 cannot
    train."""
    check(backbone, architecture)
    drop_path.adopt_subsets(backbone, architecture)
    return backbone
