"""Label-free monitors of a run's features on a fixed set of patches, and the alarm when they degenerate. N images, D width."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from patho_api import common
from patho_trainer.evaluation import metrics as scores

PROBE_PATCHES = 512  # more than the width of ViT-S, so that rank is bounded by the features and not by the set
RANKME_SHARE = 0.25  # of its own maximum: below it, features have degenerated
ENTROPY_BOUNDS = (0.001, 0.999)  # of log K: at the lower one every image goes to one prototype, at the upper one to all


@dataclasses.dataclass(frozen=True)
class Health:
    """What the monitors said last; `rankme_max` is the highest so far, also of earlier attempts."""

    rankme: float
    odcorr: float
    rankme_max: float
    collapsed: bool


def judge(features_ND: torch.Tensor, teacher_entropy: float, prototypes: int, rankme_max: float) -> Health:
    """Measure features and raise the alarm: RankMe far under its maximum, or the teacher's entropy (nats) at one of its bounds."""
    rankme = scores.rank_me(features_ND)
    highest = max(rankme, rankme_max)
    low, high = (share * math.log(prototypes) for share in ENTROPY_BOUNDS)
    collapsed = rankme < RANKME_SHARE * highest or not low < teacher_entropy < high
    return Health(rankme=rankme, odcorr=scores.od_corr(features_ND), rankme_max=highest, collapsed=collapsed)


@torch.no_grad()
def features(
    backbone: Callable[[torch.Tensor], torch.Tensor],
    batches: Sequence[torch.Tensor],
    size_px: int,
    normalization: common.Normalization,
    device: torch.device,
) -> torch.Tensor:
    """Features (N, D), float32 on the CPU, of uint8 patches (b, h, w, 3) that are resized to `size_px`. The backbone stays in its mode."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (normalization.mean, normalization.std))
    found = []
    for images_BHWC in batches:
        images_BCHW = images_BHWC.to(device).permute(0, 3, 1, 2).float() / 255
        resized = functional.interpolate(images_BCHW, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
        found.append(backbone((resized - mean) / std).float().cpu())
    return torch.cat(found)
