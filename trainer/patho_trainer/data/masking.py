"""iBOT's block masks over the tokens of global crops: pure functions of (seed, step, sample, view).

Source: facebookresearch/dinov2 (`MaskingGenerator`, `collate_data_and_cast`), after BEiT (arXiv 2106.08254). There, shares of masked
tokens are stratified over the batch of one GPU, here over the global batch, so that any number of processes draws the same masks.

B samples, C crops (view by view), H x W tokens of a crop, A attempts.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy import typing as npt

from patho_trainer import keyed
from patho_trainer.data import draws

VIEWS = 2
LEAST_TOKENS = 4  # of a block that is asked for; rounding may make it smaller
LOG_ASPECT = (math.log(0.3), -math.log(0.3))
ATTEMPTS = 10  # to place a block before the mask stays as it is
_AT_ONCE = 16  # attempts drawn together: numpy's calls cost more than the numbers

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def masks(
    grid: tuple[int, int], probability: float, ratio: Sequence[float], batch_size: int, seed: int, step: int, slots: Sequence[int]
) -> Bools:
    """Masks (2 B, H, W) of both global crops of the samples `slots`, first view first; `batch_size` is the global one.

    A share `probability` of all 2 `batch_size` crops is masked, with shares of tokens that cover `ratio` evenly.
    """
    targets_C = targets(math.prod(grid), probability, ratio, batch_size, seed, step, slots)
    slots_C = np.tile(np.asarray(slots), VIEWS)
    purposes_C = np.repeat(keyed.MASK_BLOCKS + np.arange(VIEWS), len(slots))

    def uniform_CA4(first: int) -> Floats:
        pair = 2 * np.arange(first, first + _AT_ONCE)
        numbers = [draws.uniforms(seed, purposes_C[:, None], step, slots_C[:, None], pair + half) for half in (0, 1)]
        return np.stack([*numbers[0], *numbers[1]], axis=-1)

    out = np.zeros((len(targets_C), *grid), dtype=np.bool_)
    failures_C = np.zeros(len(targets_C), dtype=np.int64)
    attempt = 0
    while (active_C := (out.sum((1, 2)) < targets_C) & (failures_C < ATTEMPTS)).any():
        if attempt % _AT_ONCE == 0:
            u_CA4 = uniform_CA4(attempt)
        placed_C = place(out, np.where(active_C, targets_C, 0), u_CA4[:, attempt % _AT_ONCE])
        failures_C = np.where(placed_C, 0, failures_C + 1)
        attempt += 1
    return out


def targets(
    tokens: int, probability: float, ratio: Sequence[float], batch_size: int, seed: int, step: int, slots: Sequence[int]
) -> Integers:
    """How many of its `tokens` each crop (2 B) of the samples `slots` should mask; 0 for those that stay whole.

    Of 2 `batch_size` crops in random order the first `probability` get one stratum of `ratio` each.
    """
    chosen = int(VIEWS * batch_size * probability)
    stratum = np.argsort(draws.permutation(seed, keyed.MASK_STRATUM, VIEWS * batch_size, step))
    mine_C = np.concatenate([stratum[view * batch_size + np.asarray(slots)] for view in range(VIEWS)])
    within_C = np.concatenate([keyed.uniform(seed, step, slots, keyed.MASK_RATIO + view, 1)[:, 0] for view in range(VIEWS)])
    width = (ratio[1] - ratio[0]) / max(chosen, 1)
    share_C = ratio[0] + width * (mine_C + within_C)
    return np.where(mine_C < chosen, np.floor(tokens * share_C), 0).astype(np.int64)


def place(masks_CHW: Bools, targets_C: Integers, u_C4: Floats) -> Bools:
    """Try to add one block to each mask, in place, from uniform numbers (area, aspect, top, left). Returns (C,) where one was added.

    A block is added that fits, covers a free token, and does not carry the mask over its target.
    """
    _, height, width = masks_CHW.shape
    largest = height // 2 * width
    left_C = np.minimum(targets_C - masks_CHW.sum((1, 2)), largest)
    area_C = np.maximum(LEAST_TOKENS + (left_C - LEAST_TOKENS) * u_C4[:, 0], 0)
    aspect_C = np.exp(LOG_ASPECT[0] + (LOG_ASPECT[1] - LOG_ASPECT[0]) * u_C4[:, 1])
    size_C2 = np.rint(np.sqrt(np.stack([area_C * aspect_C, area_C / aspect_C], axis=1))).astype(np.int64)
    fits_C = (size_C2 < (height, width)).all(axis=1)
    corner_C2 = np.floor(u_C4[:, 2:] * (np.array([height, width]) - size_C2 + 1)).astype(np.int64)
    inside_CHW = _within(corner_C2[:, 0], size_C2[:, 0], height)[:, :, None] & _within(corner_C2[:, 1], size_C2[:, 1], width)[:, None]
    new_CHW = inside_CHW & ~masks_CHW
    count_C = new_CHW.sum((1, 2))
    placed_C: Bools = fits_C & (count_C > 0) & (count_C <= left_C)
    masks_CHW |= new_CHW & placed_C[:, None, None]
    return placed_C


def _within(first_C: Integers, count_C: Integers, length: int) -> Bools:
    """(C, length): which of `length` positions lie in each range."""
    position = np.arange(length)
    found: Bools = (position >= first_C[:, None]) & (position < (first_C + count_C)[:, None])
    return found
