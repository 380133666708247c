"""Which stored tiles regions of slides touch, and which part of each goes where. Pure; for many regions at once, as alone each costs more.

A table of tiles is int64 (t, 9): a row for each tile of each region, with the fields of TileRead; region after region, row by row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

OFFSET, SIZE, X, Y, WIDTH, HEIGHT, COLUMN, ROW, BUFFER = FIELDS = range(9)  # of a table


class TileRead(NamedTuple):
    """One stored tile that a region needs, a row of a table.

    `size` bytes at `offset` in the file (none: it is left out there, and white); the part that is wanted, `width` x `height` pixels from
    (`x`, `y`) of the tile; where that goes in the region; and which of the buffers that are read together holds it (-1: none does).
    """

    offset: int
    size: int
    x: int
    y: int
    width: int
    height: int
    column: int
    row: int
    buffer: int = -1

    @property
    def source(self) -> tuple[slice, slice]:
        """Rows and columns of the tile."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def target(self) -> tuple[slice, slice]:
        """Rows and columns of the region."""
        return slice(self.row, self.row + self.height), slice(self.column, self.column + self.width)


class Regions(NamedTuple):
    """Rectangles of stored levels, and the sizes of these and of their tiles: (n,) each, in pixels of the level."""

    x: Ints
    y: Ints
    width: Ints
    height: Ints
    level_width: Ints
    level_height: Ints
    tile_width: Ints
    tile_height: Ints


class Touched(NamedTuple):
    """Tiles that regions touch: which region, row and column of the level's grid, (t,) each, and their table without offsets and sizes."""

    region: Ints
    row: Ints
    column: Ints
    table: Ints


def touched(of: Regions) -> Touched:
    """The tiles of some regions. What is off the slide needs no tile."""
    left, right, first_column, across = _span(of.x, of.width, of.level_width, of.tile_width)
    top, bottom, first_row, down = _span(of.y, of.height, of.level_height, of.tile_height)
    counts = across * down
    region = np.repeat(np.arange(len(counts)), counts)
    nth_row, nth_column = np.divmod(np.arange(len(region)) - (np.cumsum(counts) - counts)[region], across[region])
    row, column = first_row[region] + nth_row, first_column[region] + nth_column
    table = np.full((len(region), len(FIELDS)), -1, dtype=np.int64)
    table[:, X], table[:, WIDTH], table[:, COLUMN] = _overlap(column * of.tile_width[region], region, of.tile_width, left, right, of.x)
    table[:, Y], table[:, HEIGHT], table[:, ROW] = _overlap(row * of.tile_height[region], region, of.tile_height, top, bottom, of.y)
    return Touched(region, row, column, table)


def _span(start: Ints, length: Ints, extent: Ints, tile: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Along one axis: first pixel on the slide and the one after the last; first tile, and how many."""
    low, high = np.maximum(0, start), np.minimum(extent, start + length)
    first = low // tile
    return low, high, first, np.where(low < high, (high - 1) // tile + 1 - first, 0)


def _overlap(tile_start: Ints, region: Ints, tile: Ints, low: Ints, high: Ints, origin: Ints) -> tuple[Ints, Ints, Ints]:
    """The part of [low, high) in each tile: its start, counted from the tile's edge, its length, its start from the region's origin."""
    first, last = np.maximum(low[region], tile_start), np.minimum(high[region], tile_start + tile[region])
    return first - tile_start, last - first, first - origin[region]


def numbered(table: Ints, groups: Ints) -> tuple[Ints, Ints]:
    """Number the distinct ranges of each group of rows (t,), ascending, in the order of the file, in the table's column BUFFER.

    Returns the distinct rows' groups and indices into the table, (r,) each, group after group.
    """
    stored = np.flatnonzero(table[:, SIZE])
    order = stored[np.lexsort((table[stored, SIZE], table[stored, OFFSET], groups[stored]))]
    keys = np.column_stack((groups[order], table[order, OFFSET], table[order, SIZE]))
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    numbers, kept = np.cumsum(fresh) - 1, order[fresh]
    table[order, BUFFER] = numbers - np.searchsorted(groups[kept], groups[order])
    return groups[kept], kept
