"""Multi-crop on the device where the model is: uint8 patches in, normalised crops out. Source: facebookresearch/dino and dinov2.

B patches, V views, N = B V crops of one size.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy import typing as npt
from torch.nn import functional

from patho_trainer import config
from patho_trainer.data import augment_draw, augment_ops

CPU_CHUNK_PX = 1 << 19
"""Crops are worked on this many pixels at a time on a CPU, so that they stay in its cache."""

_JITTER = (augment_ops.brightness_, augment_ops.contrast_, augment_ops.saturation_, augment_ops.hue_)


def multi_crop(
    images_BHWC: torch.Tensor, training: config.Hyperparameters, seed: int, step: int, slots: Sequence[int]
) -> list[torch.Tensor]:
    """Two global and n local crops of each patch, as a list of views (B, 3, size, size), normalised float32.

    `images_BHWC` are square uint8 patches, `slots` their numbers in the global batch. A slot gets bitwise the same crops whatever
    else is in the batch (on a CPU; on a GPU the mean inside `contrast` may round differently). Views of one size lie in one tensor.
    """
    crops = training.crops
    draws = [augment_draw.draw(training, images_BHWC.shape[1], seed, step, slots, view) for view in range(2 + crops.local_count)]
    out = list(_crops(images_BHWC, augment_draw.joined(draws[:2]), crops.global_size_px, training))
    if crops.local_count:
        out += _crops(images_BHWC, augment_draw.joined(draws[2:]), crops.local_size_px, training)
    return out


def _crops(images_BHWC: torch.Tensor, draws: augment_draw.Draws, size_px: int, training: config.Hyperparameters) -> torch.Tensor:
    """Views (V, B, 3, size, size) of one size; row n of the draws is view n // B of patch n % B.

    Crops are worked on in the order of their jitter, so that those with the same next operation lie side by side.
    """
    order = np.lexsort(draws.jitter_order.T[::-1])
    x = torch.empty(len(order), 3, size_px, size_px, device=images_BHWC.device)
    chunk = len(order) if x.device.type != "cpu" else max(1, CPU_CHUNK_PX // size_px**2)
    for first in range(0, len(order), chunk):
        rows, part = order[first : first + chunk], x[first : first + chunk]
        some = augment_draw.taken(draws, rows)
        cut([images_BHWC[row % len(images_BHWC)] for row in rows], some, part)
        shift_stains_(part, some)
        jitter_(part, some)
        blur_(part, some, training.method)
        solarize_(part, some)
        normalize_(part, training.normalization.mean, training.normalization.std)
    return x.index_select(0, torch.from_numpy(np.argsort(order)).to(x.device)).view(-1, len(images_BHWC), *x.shape[1:])


def cut(patches_HWC: Sequence[torch.Tensor], draws: augment_draw.Draws, out: torch.Tensor) -> None:
    """Crop, resize, flip and turn into `out` (N, 3, size, size), in [0, 1]."""
    for i, (patch, (top, left, height, width)) in enumerate(zip(patches_HWC, draws.box_px.tolist(), strict=True)):
        source = patch[top : top + height, left : left + width].permute(2, 0, 1)[None]
        crop = resized(source if source.device.type == "cpu" else source.float(), out.shape[-1])[0]
        crop = crop.flip(-1) if draws.flip[i] else crop
        out[i].copy_(torch.rot90(crop, int(draws.quarter_turns[i]), (-2, -1)))
    out.div_(255)


def resized(images: torch.Tensor, size_px: int) -> torch.Tensor:
    """Images (N, 3, H, W) at (size, size): bicubic with antialias, in whole levels of 0 to 255 like PIL's.

    torch resamples uint8 on a CPU only, there four times as fast as float32.
    """
    out = functional.interpolate(images, size=(size_px, size_px), mode="bicubic", antialias=True, align_corners=False)
    return out.round_().clamp_(0, 255) if out.is_floating_point() else out


def shift_stains_(x: torch.Tensor, draws: augment_draw.Draws) -> None:
    """Add to the stains of the crops that were drawn for it; in place."""
    rows = np.flatnonzero(draws.hed_shift.any(axis=1))
    if len(rows):
        shifted = augment_ops.shift_stains(x[torch.from_numpy(rows).to(x.device)], _like(x, draws.hed_shift[rows]))
        for row, crop in zip(rows, shifted, strict=True):
            x[row] = crop


def jitter_(x: torch.Tensor, draws: augment_draw.Draws) -> None:
    """Brightness, contrast, saturation and hue in each crop's own order, then greyscale; in place, fastest on crops sorted by order."""
    factors = _like(x, draws.jitter_factor)
    for position in range(4):
        for run, kind in _runs(draws.jitter_order[:, position]):
            if kind >= 0:
                _JITTER[kind](x[run], factors[run, kind])
    for run, grey in _runs(draws.grey):
        if grey:
            augment_ops.grey_(x[run])


def blur_(x: torch.Tensor, draws: augment_draw.Draws, method: Literal["DINO", "DINOv2"]) -> None:
    """Blur the crops that were drawn for it, in place: as PIL does with DINO, as torchvision with DINOv2."""
    chosen = draws.blur_sigma_px > 0
    inner = augment_ops.box_inner_radius_px(draws.blur_sigma_px) if method == "DINO" else np.zeros(len(chosen), dtype=np.int64)
    radii = np.where(chosen, inner, -1)
    for radius in sorted(set(radii.tolist()) - {-1}):  # crops with kernels of one length together
        rows = np.flatnonzero(radii == radius)
        sigma_px, crops = draws.blur_sigma_px[rows], x[torch.from_numpy(rows).to(x.device)]
        if method == "DINO":
            blurred = augment_ops.blur(crops, _like(x, augment_ops.box_half_kernels(sigma_px)), "replicate")
        else:
            blurred = augment_ops.blur(crops, _like(x, augment_ops.gaussian_half_kernels(sigma_px)), "reflect")
        for row, crop in zip(rows, blurred, strict=True):  # on a CPU four times as fast as index_copy_
            x[row] = crop


def solarize_(x: torch.Tensor, draws: augment_draw.Draws) -> None:
    """Solarise the crops that were drawn for it; in place."""
    for run, solarize in _runs(draws.solarize):
        if solarize:
            augment_ops.solarize_(x[run])


def _runs(values: npt.NDArray[Any]) -> Iterator[tuple[slice, Any]]:
    """Stretches of equal values, as (run, value)."""
    ends = [*(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for first, end in itertools.pairwise([0, *ends]):
        yield slice(first, end), values[first]


def _like(x: torch.Tensor, values: augment_draw.Floats) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(x.device)


def normalize_(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x - mean) / std for each channel; in place."""
    channels = torch.tensor([mean, std], device=x.device)[:, None, :, None, None]
    return x.sub_(channels[0]).div_(channels[1])
