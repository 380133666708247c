"""Where on a slide a patch may lie: cells of accepted corners, and exact coverage of one patch. Pure: masks in, corners out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from patho_trainer.data import catalog, core

native = core.native

TRIES = 8  # corners that are drawn before the cell's centre is taken
ENOUGH = 256  # accepted cells: with fewer, their edges would shape what is drawn
ROUNDING = 1e-9
CHUNK_BYTES = 32 * 2**20  # of mask pixels as numbers that coverage lays out at once, or those of one patch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Tissue:
    """A foreground mask as kept while a slot uses it: one bit a pixel, rows padded to whole bytes."""

    rows: int
    columns: int
    packed: NDArray[np.uint8]  # (rows, ceil(columns / 8))

    def integral(self) -> "Sums":
        """Of the part that holds all tissue: most of a slide is glass."""
        rows, bytes_ = np.flatnonzero(self.packed.any(axis=1)), np.flatnonzero(self.packed.any(axis=0))
        if not len(rows):
            return Sums(np.zeros((1, 1), np.int32), 0, 0)
        part = self.packed[rows[0] : rows[-1] + 1, bytes_[0] : bytes_[-1] + 1]
        left = 8 * int(bytes_[0])
        pixels = np.unpackbits(part, axis=1, count=min(8 * part.shape[1], self.columns - left))
        return Sums(np.asarray(cv2.integral(pixels), dtype=np.int32), int(rows[0]), left)


class Sums(NamedTuple):
    """Sums of all pixels above and left of each pixel corner, (h + 1, w + 1), of a part of a mask; the rest of it is empty."""

    table: NDArray[np.int32]
    top: int  # where the part begins
    left: int


@dataclasses.dataclass(frozen=True)
class Places:
    """The accepted cells of one slide at one resolution, in pixels of the source level.

    Free: the corners that fit on the slide are cut into equal cells of at most a patch; a corner is anywhere in its cell. Grid: a
    cell is one corner, that of a stored tile.
    """

    source_px: int
    columns: int
    step: tuple[float, float]  # (x, y) from a cell to the next
    limit: tuple[int, int]  # largest corner (x, y) that is on the slide
    mask_scale: tuple[float, float]  # (x, y) mask pixels a pixel of the level
    accepted: NDArray[np.int32]  # row * columns + column, ascending; never empty
    free: bool


class Chances(NamedTuple):
    """Numbers in [0, 1) of n patches and some tries each, (n, tries): which cell, and where in it."""

    cell: Floats
    across: Floats
    down: Floats


def draw(where: Sequence[Places], tissues: Sequence[Tissue], min_coverage: float, chances: Chances) -> tuple[Ints, Ints]:
    """The corners (x, y) of n patches: the first of the tries that lies on enough tissue, else the centre of the last cell, which does."""
    corners = np.zeros((2, len(where)), dtype=np.int64)
    left = np.arange(len(where))  # those without a place so far
    for k in range(chances.cell.shape[1]):
        these = [where[i] for i in left.tolist()]
        found = _drawn(these, chances.cell[left, k], chances.across[left, k], chances.down[left, k])
        corners[:, left] = found
        left = left[~_lies_well(these, [tissues[i] for i in left.tolist()], found, min_coverage)]
        if not len(left):
            return corners[0], corners[1]
    middle = np.full(len(left), 0.5)
    corners[:, left] = _drawn([where[i] for i in left.tolist()], chances.cell[left, -1], middle, middle)
    return corners[0], corners[1]


def _drawn(where: Sequence[Places], cell: Floats, across: Floats, down: Floats) -> Ints:
    """Corners, (2, n)."""
    cells = [int(p.accepted[int(u * len(p.accepted))]) for p, u in zip(where, cell.tolist(), strict=True)]
    facts = np.array([(p.columns, p.free, *p.step, *p.limit) for p in where])
    row, column = np.divmod(np.array(cells, dtype=np.int64), facts[:, 0].astype(np.int64))
    at = np.stack((column + across * facts[:, 1], row + down * facts[:, 1])) * facts[:, 2:4].T
    return np.asarray(np.minimum(at.astype(np.int64), facts[:, 4:].T.astype(np.int64)))


def _lies_well(where: Sequence[Places], tissues: Sequence[Tissue], corners: Ints, min_coverage: float) -> NDArray[np.bool_]:
    """Which patches lie on enough tissue; every cell of a grid does."""
    good = np.array([not p.free for p in where])
    free = np.flatnonzero(~good)
    facts = np.array([(p.source_px, *p.mask_scale) for p in where]).reshape(-1, 3)[free]
    left, top = corners[:, free] * facts[:, 1:].T
    width, height = facts[:, 0] * facts[:, 1:].T
    good[free] = coverage([tissues[i] for i in free.tolist()], top, left, height, width) >= min_coverage - ROUNDING
    return good


def coverage(tissues: Sequence[Tissue], top: Floats, left: Floats, height: Floats, width: Floats) -> Floats:
    """Share of each of n rectangles that lies on its mask, exact to the fraction of a pixel. In mask pixels; off the mask is no tissue."""
    found = np.zeros(len(tissues))
    scale = np.ceil(np.log2(np.maximum(height, width)))
    for each in np.unique(scale):  # rectangles of about one size together: all are laid out as large as the largest
        here = np.flatnonzero(scale == each)
        shape = int(np.ceil(height[here]).max()) + 1, (int(np.ceil(width[here]).max()) + 15) // 8
        at_once = max(1, CHUNK_BYTES // (shape[0] * shape[1] * 8 * 8))
        for chunk in np.split(here, range(at_once, len(here), at_once)):
            found[chunk] = _coverage([tissues[i] for i in chunk.tolist()], shape, top[chunk], left[chunk], height[chunk], width[chunk])
    return found


def _coverage(tissues: Sequence[Tissue], shape: tuple[int, int], top: Floats, left: Floats, height: Floats, width: Floats) -> Floats:
    """Of rectangles that lie in `shape` (rows, bytes) of their masks, wherever in a pixel and a byte they begin."""
    rows, bytes_ = np.maximum(0, np.floor(top)).astype(np.int64), np.maximum(0, np.floor(left / 8)).astype(np.int64)
    packed = np.zeros((len(tissues), *shape), dtype=np.uint8)
    for into, tissue, row, byte in zip(packed, tissues, rows.tolist(), bytes_.tolist(), strict=True):
        part = tissue.packed[row : row + shape[0], byte : byte + shape[1]]
        into[: part.shape[0], : part.shape[1]] = part
    down, across = _overlaps(rows, shape[0], top, height), _overlaps(8 * bytes_, 8 * shape[1], left, width)
    sums = (np.unpackbits(packed, axis=2).astype(np.float64) @ across[:, :, None])[:, :, 0]
    return np.asarray((down * sums).sum(axis=1) / (height * width))


def _overlaps(first: Ints, count: int, start: Floats, length: Floats) -> Floats:
    """How much of each pixel first, ..., first + count - 1 lies in [start, start + length]; (n, count)."""
    pixels = first[:, None] + np.arange(count)
    lengths = np.minimum(pixels + 1, (start + length)[:, None]) - np.maximum(pixels, start[:, None])
    return np.asarray(np.maximum(0.0, lengths))


def tissue(mask: NDArray[np.bool_]) -> Tissue:
    """Pack a mask of shape (rows, columns)."""
    return Tissue(mask.shape[0], mask.shape[1], np.packbits(mask, axis=1))


Shares = Callable[[Floats, Floats, tuple[float, float]], Floats]


def shares(tissue: Tissue) -> Shares:
    """A function of tops, lefts and one size (width, height): the shares of these rectangles on a mask, (len(tops), len(lefts)).

    Exact; in mask pixels. Do not keep it: without the native core it holds a sum for each pixel.
    """
    return functools.partial(_counted, tissue.packed) if native else functools.partial(_summed, tissue.integral())


def places(tissue: Tissue, shares: Shares, level: catalog.Level, source_px: int, min_coverage: float, *, free: bool) -> Places:
    """The accepted cells of a level for patches of `source_px` level pixels; the slide must be at least that large.

    A cell is accepted if the patch at its centre (Grid: at its corner) lies on enough tissue. Where cells of a patch's size are too
    few, smaller ones are taken, down to the mask's own pixels; if even those find none, the best covered cell it is.
    """
    limit = level.width - source_px, level.height - source_px
    scale = tissue.columns / level.width, tissue.rows / level.height
    size = source_px * scale[0], source_px * scale[1]
    cell_px = float(source_px)
    while True:
        steps, counts = _cells(level, source_px, cell_px, free=free)
        lefts, tops = (_corners(counts[i], steps[i], limit[i], free=free) * scale[i] for i in (0, 1))
        share = shares(tops, lefts, size)
        accepted = np.flatnonzero(share >= min_coverage - ROUNDING)
        cell_px /= 2
        if len(accepted) >= ENOUGH or not free or cell_px * min(scale) < 0.5:
            break
    if not len(accepted):
        accepted = np.flatnonzero(share == share.max())
    return Places(source_px, counts[0], steps, limit, scale, accepted.astype(np.int32), free)


def _cells(level: catalog.Level, source_px: int, cell_px: float, *, free: bool) -> tuple[tuple[float, float], tuple[int, int]]:
    """Steps (x, y) in pixels and counts (columns, rows) of the cells."""
    extent = level.width - source_px + 1, level.height - source_px + 1
    if free:
        counts = tuple(int(np.ceil(e / cell_px)) for e in extent)
        return (extent[0] / counts[0], extent[1] / counts[1]), (counts[0], counts[1])
    step = level.tile_width or source_px, level.tile_height or source_px
    return (float(step[0]), float(step[1])), ((extent[0] - 1) // step[0] + 1, (extent[1] - 1) // step[1] + 1)


def _corners(count: int, step: float, limit: int, *, free: bool) -> Floats:
    """The corners, along one axis, at which the cells are judged: whole pixels, as `draw` gives them."""
    middle = 0.5 if free else 0.0
    return np.asarray(np.minimum(np.floor((np.arange(count) + middle) * step), limit), dtype=np.float64)


def _counted(packed: NDArray[np.uint8], tops: Floats, lefts: Floats, size: tuple[float, float]) -> Floats:
    """By the native core, which counts bits: about a fifth of the time."""
    found = np.zeros((len(tops), len(lefts)))
    native.shares(np.ascontiguousarray(packed), tops, lefts, size[::-1], found)
    return found


def _summed(sums: Sums, tops: Floats, lefts: Floats, size: tuple[float, float]) -> Floats:
    """An integral image is bilinear between its corners."""
    width, height = size
    tops, lefts = tops - sums.top, lefts - sums.left
    down, across = (_touching(at, length, n - 1) for at, length, n in zip((tops, lefts), (height, width), sums.table.shape, strict=True))
    found = np.zeros((len(tops), len(lefts)))
    if down.start < down.stop and across.start < across.stop:
        rows = _between(sums.table, tops[down] + height, 0) - _between(sums.table, tops[down], 0)
        columns = _between(rows, lefts[across] + width, 1) - _between(rows, lefts[across], 1)
        found[down, across] = columns / (width * height)
    return found


def _touching(starts: Floats, length: float, end: int) -> slice:
    """Which of the windows [start, start + length], ascending, have something of [0, end]."""
    return slice(int(np.searchsorted(starts, -length, "right")), int(np.searchsorted(starts, end, "left")))


def _between(sums: NDArray[np.int32] | Floats, at: Floats, axis: int) -> Floats:
    """`sums` at fractional positions along an axis, by linear interpolation."""
    at = np.clip(at, 0, sums.shape[axis] - 1)
    low = np.minimum(at.astype(np.int64), sums.shape[axis] - 2)
    part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    below, above = np.take(sums, low, axis=axis), np.take(sums, low + 1, axis=axis)
    return np.asarray(below + part * (above - below), dtype=np.float64)
