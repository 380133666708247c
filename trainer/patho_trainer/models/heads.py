"""Projection head of DINO and DINOv2.

B images, D width of the backbone, H hidden width, N bottleneck width, K prototypes.
"""

import torch
from torch import nn


class Prototypes(nn.Module):
    """Linear layer without bias whose rows are normalised and scaled by `weight_g`: logits_BK = x_BN @ (g * v / |v|)^T.

    Parameters are named as in the published checkpoints (`weight_g` (K, 1), `weight_v` (K, N)).
    """

    def __init__(self, bottleneck_width: int, prototypes: int, *, train_norms: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1), requires_grad=train_norms)
        self.weight_v = nn.Parameter(nn.Linear(bottleneck_width, prototypes, bias=False).weight.detach())

    def forward(self, x_BN: torch.Tensor) -> torch.Tensor:
        norms_K1 = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        return nn.functional.linear(x_BN, self.weight_v * (self.weight_g / norms_K1))


class ProjectionHead(nn.Module):
    """Three-layer MLP with GELU, L2-normalised bottleneck, prototypes. Source: facebookresearch/dino, arXiv 2104.14294 appendix C."""

    def __init__(self, width: int, *, hidden_width: int, bottleneck_width: int, prototypes: int, norm_last_layer: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, bottleneck_width),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck_width, prototypes, train_norms=not norm_last_layer)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        """(B, D) features -> (B, K) logits."""
        logits_BK: torch.Tensor = self.last_layer(nn.functional.normalize(self.mlp(x_BD), dim=-1))
        return logits_BK
