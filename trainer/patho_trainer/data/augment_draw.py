"""The random decisions of multi-crop: pure, on the CPU, keyed by (seed, step, sample, view).

N crops. Distributions: facebookresearch/dino and dinov2 `DataAugmentationDINO`, torchvision's RandomResizedCrop and ColorJitter; for the
shift of stains MedARC-AI/OpenMidnight.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy import typing as npt

from patho_trainer import config, keyed

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10  # of RandomResizedCrop before it takes the middle
JITTER_PROBABILITY, JITTER = 0.8, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
FLIP_PROBABILITY, GREY_PROBABILITY = 0.5, 0.2
BLUR_SIGMA_PX = (0.1, 2.0)
SOLARIZE_PROBABILITY = (0.0, 0.2, 0.0)  # first global, second global, local crops
HED_PROBABILITY, HED_SHIFT = 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class Draws:
    """What happens to each of N crops."""

    box_px: Integers
    """(N, 4): top, left, height, width in the patch."""
    flip: Bools
    quarter_turns: Integers
    """(N,): 0 to 3, counter-clockwise, after the flip."""
    hed_shift: Floats
    """(N, 3): what is added to haematoxylin, eosin and DAB; 0 for crops left alone."""
    jitter_order: Integers
    """(N, 4): which operation comes first, second, ...: 0 brightness, 1 contrast, 2 saturation, 3 hue; -1 for crops left alone."""
    jitter_factor: Floats
    """(N, 4): factors of brightness, contrast and saturation, shift of hue in turns."""
    grey: Bools
    blur_sigma_px: Floats
    """(N,): 0 for crops that stay sharp."""
    solarize: Bools


def draw(training: config.Hyperparameters, patch_px: int, seed: int, step: int, slots: Sequence[int], view: int) -> Draws:
    """The decisions for one view (0 and 1 are global, the rest local) of the patches in `slots`, sample numbers in the global batch."""
    ends = [10, 20, 22, 26, 30, 31, 32, 33, 34, 35, 36, 37, 38]
    u = np.split(keyed.uniform(seed, step, slots, keyed.CROP + view, 41), ends, axis=1)
    area, ratio, corner, order, factor, flip, jitter, grey, blur, sigma, solarize, turn, hed, shift = u
    crops, extras, kind = training.crops, training.augmentation, min(view, 2)
    ranges = np.array(list(JITTER.values()))
    centres = np.array([1.0, 1.0, 1.0, 0.0])
    return Draws(
        box_px=boxes(patch_px, crops.global_scale if view < 2 else crops.local_scale, area, ratio, corner),
        flip=flip[:, 0] < FLIP_PROBABILITY,
        quarter_turns=np.floor(4 * extras.rotate90 * turn[:, 0]).astype(np.int64),
        hed_shift=np.where(hed < HED_PROBABILITY * extras.hed, _between((-HED_SHIFT, HED_SHIFT), shift), 0.0),
        jitter_order=np.where(jitter < JITTER_PROBABILITY, np.argsort(order, axis=1, kind="stable"), -1),
        jitter_factor=centres + ranges * (2 * factor - 1),
        grey=grey[:, 0] < GREY_PROBABILITY,
        blur_sigma_px=np.where(blur < extras.blur_probabilities[kind], _between(BLUR_SIGMA_PX, sigma), 0.0)[:, 0],
        solarize=solarize[:, 0] < SOLARIZE_PROBABILITY[kind],
    )


def boxes(patch_px: int, scale: Sequence[float], area: Floats, ratio: Floats, corner: Floats) -> Integers:
    """Boxes (N, 4) of RandomResizedCrop out of a square patch, from uniform numbers: area and ratio (N, attempts), corner (N, 2).

    The first attempt that fits counts; where none fits, the whole patch: torchvision's fallback for a square.
    """
    target_px2 = patch_px**2 * _between(scale, area)
    aspect = np.exp(_between(np.log(RATIO), ratio))
    width = np.rint(np.sqrt(target_px2 * aspect)).astype(np.int64)
    height = np.rint(np.sqrt(target_px2 / aspect)).astype(np.int64)
    fits = (width > 0) & (width <= patch_px) & (height > 0) & (height <= patch_px)
    first = np.argmax(fits, axis=1)[:, None]
    size = np.concatenate([np.take_along_axis(height, first, 1), np.take_along_axis(width, first, 1)], axis=1)
    size = np.where(fits.any(axis=1, keepdims=True), size, patch_px)
    return np.concatenate([np.floor(corner * (patch_px - size + 1)).astype(np.int64), size], axis=1)


def joined(draws: Sequence[Draws]) -> Draws:
    """Several draws as one, in order."""
    fields = (field.name for field in dataclasses.fields(Draws))
    return Draws(**{name: np.concatenate([getattr(one, name) for one in draws]) for name in fields})


def taken(draws: Draws, rows: Integers) -> Draws:
    """Some rows of the draws."""
    return Draws(**{field.name: getattr(draws, field.name)[rows] for field in dataclasses.fields(Draws)})


def _between(limits: Sequence[float] | Floats, uniform: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * uniform
