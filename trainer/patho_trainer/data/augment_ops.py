"""Colour and blur operations on batches of crops, on any device, equal to torchvision's on float tensors.

Crops are (N, 3, H, W), float32 in [0, 1]; factors are (N,). Only operations that round once per element are used (no fused
multiply-add, no `where`, which is also slow on CPUs), so that a crop comes out bitwise the same whatever else is in the batch.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy import typing as npt
from torch.nn import functional

LUMA = (0.2989, 0.587, 0.114)
SOLARIZE_THRESHOLD = 128 / 255
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Absorption of red, green and blue by haematoxylin, eosin and DAB: Ruifrok and Johnston 2001, as in skimage's `rgb_from_hed`."""
_UNMIX = np.linalg.inv(STAINS)
DARKEST = 1e-6  # skimage's unit of a stain: the logarithm of this


def shift_stains(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Crops with `shift` (N, 3) added to their amounts of haematoxylin, eosin and DAB, in skimage's units, clipped to [0, 1].

    As skimage's `rgb2hed` and `hed2rgb`: negative amounts count as none, so that a shift of zero changes colours that are no stain's.
    """
    density = x.clamp(min=DARKEST).log_().div_(math.log(DARKEST)).unbind(1)
    stains = [_mixed(density, column).clamp_(min=0).add_(shift[:, s, None, None]) for s, column in enumerate(_UNMIX.T)]
    mixed = [_mixed(stains, column) for column in np.array(STAINS).T]
    return torch.stack(mixed, dim=1).mul_(math.log(DARKEST)).exp_().clamp_(0, 1)


def _mixed(parts: Sequence[torch.Tensor], weights: npt.NDArray[np.float64]) -> torch.Tensor:
    """Weighted sum, one rounding after the other."""
    out = parts[0] * float(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out.add_(part * float(weight))
    return out


def brightness_(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """x <- f x, clipped; in place."""
    return x.mul_(_column(factor)).clamp_(0, 1)


def contrast_(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """x <- f x + (1 - f) mean luma of the crop, clipped; in place."""
    means = x.flatten(2).mean(2)
    mean_luma = LUMA[0] * means[:, 0] + LUMA[1] * means[:, 1] + LUMA[2] * means[:, 2]
    return x.mul_(_column(factor)).add_(_column((1 - factor) * mean_luma)).clamp_(0, 1)


def saturation_(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """x <- f x + (1 - f) luma of the pixel, clipped; in place."""
    rest = luma(x).mul_(_column(1 - factor))
    return x.mul_(_column(factor)).add_(rest).clamp_(0, 1)


def luma(x: torch.Tensor) -> torch.Tensor:
    """Luma (N, 1, H, W)."""
    r, g, b = x.unbind(1)
    return (r * LUMA[0]).add_(g * LUMA[1]).add_(b * LUMA[2]).unsqueeze(1)


def hue_(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Shift the hue by `turns` (1 is a whole turn), keep HSV's saturation and value; in place.

    With M, m the largest and smallest channel and C = M - m, the hue in sixths of a turn, from red, is h = +-(1 + (g + b - r - m) / C)
    with the sign of g - b, and a channel whose own hue is at c (red 0, green 2, blue -2) is M + C - C clip(|h - c|, 1, 2).
    """
    r, g, b = x.unbind(1)
    low = torch.minimum(torch.minimum(r, g), b)
    high = torch.maximum(torch.maximum(r, g), b)
    chroma = high - low
    distance = (g + b).sub_(r).sub_(low).div_(chroma.clamp(min=1e-12)).add_(1)
    hue = distance.copysign_(g - b).add_(6 * turns[:, None, None])
    hue.sub_((hue / 6).round_().mul_(6))  # into [-3, 3]
    top = high.add_(chroma)
    for channel, own in ((r, 0), (g, 2), (b, -2)):
        away = hue - own
        away = away.sub_((away / 6).round_().mul_(6)).abs_() if own else away.abs_()
        torch.sub(top, away.clamp_(1, 2).mul_(chroma), out=channel)
    return x.clamp_(0, 1)


def grey_(x: torch.Tensor) -> torch.Tensor:
    """All channels to the luma; in place."""
    return x.copy_(luma(x).expand_as(x))


def solarize_(x: torch.Tensor) -> torch.Tensor:
    """Invert values of 128/255 and more; in place."""
    above = (x >= SOLARIZE_THRESHOLD).to(x.dtype)
    return x.sub_(above).mul_(1 - 2 * above)  # x, or -(x - 1)


def blur(x: torch.Tensor, half_kernels: torch.Tensor, border: Literal["replicate", "reflect"]) -> torch.Tensor:
    """Separable blur with one symmetric kernel a crop; `half_kernels` (N, 1 + radius), the middle first.

    Borders are repeated as in PIL, or mirrored as in torchvision.
    """
    radius_px, size = half_kernels.shape[1] - 1, x.shape[-1]
    padded = functional.pad(x, (radius_px,) * 4, mode=border)
    for dim in (2, 3):
        out = padded.narrow(dim, radius_px, size) * _column(half_kernels[:, 0])
        for k in range(1, radius_px + 1):
            pair = padded.narrow(dim, radius_px - k, size) + padded.narrow(dim, radius_px + k, size)
            out.add_(pair.mul_(_column(half_kernels[:, k])))
        padded = out
    return padded


def gaussian_half_kernels(sigma_px: npt.NDArray[np.float64], radius_px: int = 4) -> npt.NDArray[np.float64]:
    """The kernels (N, 1 + radius) of torchvision's GaussianBlur of 9 pixels, DINOv2's: a Gaussian at whole pixels, cut off."""
    whole = np.exp(-0.5 * (np.arange(-radius_px, radius_px + 1) / sigma_px[:, None]) ** 2)
    return np.asarray((whole / whole.sum(axis=1, keepdims=True))[:, radius_px:])


def box_half_kernels(sigma_px: npt.NDArray[np.float64], passes: int = 3) -> npt.NDArray[np.float64]:
    """The kernels (N, 1 + radius) of PIL's GaussianBlur: `passes` box filters whose fractional width gives the variance exactly.

    Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering".
    A sampled Gaussian would blur too little below half a pixel.
    """
    variance = sigma_px**2 / passes
    inner = box_inner_radius_px(sigma_px, passes)
    edge = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1) ** 2))
    offsets = np.abs(np.arange(-inner.max() - 1, inner.max() + 2))
    box = np.where(offsets <= inner[:, None], 1.0, np.where(offsets == inner[:, None] + 1, edge[:, None], 0.0))
    box /= box.sum(axis=1, keepdims=True)
    kernels = np.stack([functools.reduce(np.convolve, [row] * passes) for row in box])
    return kernels[:, kernels.shape[1] // 2 :]


def box_inner_radius_px(sigma_px: npt.NDArray[np.float64], passes: int = 3) -> npt.NDArray[np.int64]:
    """Whole pixels of a box filter on each side of its middle, for one pass of several."""
    return np.floor((np.sqrt(12 * sigma_px**2 / passes + 1) - 1) / 2).astype(np.int64)


def _column(per_crop: torch.Tensor) -> torch.Tensor:
    return per_crop.to(torch.float32)[:, None, None, None]
