"""Columns: the patches that one slot takes from one slide in the steps ahead, and the byte ranges that they need. Pure.

A column is fetched by one call, because one call for 16 ranges costs half the CPU time of 16 calls for one. Many columns are planned by
one call for the same reason.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patho_trainer.data import catalog as catalogs
from patho_trainer.data import sampler, tiles


class Patch(NamedTuple):
    """A request and the table of the stored tiles that it touches (none for a slide that OpenSlide reads)."""

    request: sampler.Request
    tiles: tiles.Ints

    @property
    def bytes(self) -> int:
        """Compressed size."""
        return int(self.tiles[:, tiles.SIZE].sum())


class Column(NamedTuple):
    """Consecutive patches of one slot, all of one slide; and the distinct ranges of their tiles, which `BUFFER` numbers, in bytes."""

    patches: tuple[Patch, ...]
    starts: list[int]
    sizes: list[int]


def alone(patch: Patch) -> Column:
    """A column of one patch."""
    return _columns([patch.request], np.array([1]), patch.tiles.copy(), np.zeros(len(patch.tiles), dtype=np.int64))[0]


def patches(catalog: catalogs.Catalog, requests: Sequence[sampler.Request]) -> list[Patch]:
    """Find the tiles of some requests. Reads the records that are not in memory, all in one go."""
    return _patches(requests, *_tiles(catalog, requests))


def _patches(requests: Sequence[sampler.Request], table: tiles.Ints, patch: tiles.Ints) -> list[Patch]:
    """`patch` says which each row of the table is of, ascending."""
    ends = np.searchsorted(patch, np.arange(len(requests) + 1)).tolist()
    return [Patch(r, table[start:end]) for r, (start, end) in zip(requests, itertools.pairwise(ends), strict=True)]


def _tiles(catalog: catalogs.Catalog, requests: Sequence[sampler.Request]) -> tuple[tiles.Ints, tiles.Ints]:
    """The table of all tiles of some requests, and which request each row is of (t,), ascending."""
    tiled = np.array([k for k, r in enumerate(requests) if catalog.slides[r.slide].reader == "tiff"], dtype=np.int64)
    wanted = [requests[k] for k in tiled]
    kinds: dict[tuple[int, int], int] = {}
    kind = np.array([kinds.setdefault((r.slide, r.level), len(kinds)) for r in wanted], dtype=np.int64)
    shapes = np.array([_shape(catalog.slides[slide].levels[level]) for slide, level in kinds], dtype=np.int64).reshape(-1, 4)[kind]
    squares = np.array([(r.x, r.y, r.source_px, r.source_px) for r in wanted], dtype=np.int64).reshape(-1, 4)
    found = tiles.touched(tiles.Regions(*squares.T, *shapes.T))
    _locate(catalog, list(kinds), kind[found.region], found)
    return found.table, tiled[found.region]


def _shape(level: catalogs.Level) -> tuple[int, int, int, int]:
    return level.width, level.height, level.tile_width, level.tile_height


def _locate(catalog: catalogs.Catalog, kinds: Sequence[tuple[int, int]], kind: tiles.Ints, found: tiles.Touched) -> None:
    """Fill in offsets and sizes; `kinds` are pairs of slide and level, and `kind` says which a tile is of."""
    slides = list(dict.fromkeys(slide for slide, _ in kinds))
    records = dict(zip(slides, catalog.records(slides), strict=True))
    order = np.argsort(kind, kind="stable")
    ends = np.searchsorted(kind[order], np.arange(len(kinds) + 1)).tolist()
    for k, (slide, level) in enumerate(kinds):
        here = order[ends[k] : ends[k + 1]]
        offsets, sizes = records[slide].at(level, found.row[here], found.column[here])
        found.table[here, tiles.OFFSET], found.table[here, tiles.SIZE] = offsets, sizes


def ahead(plan: sampler.Plan, first: ArrayLike, slots: Sequence[int], stop_step: int | None, max_bytes: int) -> list[Column]:
    """One column for each slot, from step `first` (one for all, or one each) to the end of its window (or of the run).

    A column is cut where it would exceed `max_bytes`.
    """
    starts = np.broadcast_to(np.asarray(first, dtype=np.int64), len(slots))
    lengths = plan.steps_left(starts, slots)
    if stop_step is not None:
        lengths = np.minimum(lengths, stop_step - starts)
    column = np.repeat(np.arange(len(slots)), lengths)
    nth = np.arange(len(column)) - (np.cumsum(lengths) - lengths)[column]
    requests = plan.draw(starts[column] + nth, np.asarray(slots, dtype=np.int64)[column])
    table, patch = _tiles(plan.catalog, requests)
    sizes = np.bincount(patch, table[:, tiles.SIZE], len(requests)).astype(np.int64)
    fits = _fits(sizes, column, nth, max_bytes)
    kept, numbers = fits[patch], np.cumsum(fits) - 1
    return _columns(list(itertools.compress(requests, fits)), np.bincount(column[fits]), table[kept], numbers[patch[kept]])


def _fits(sizes: tiles.Ints, column: tiles.Ints, nth: tiles.Ints, max_bytes: int) -> NDArray[np.bool_]:
    """Which patches their columns have room for: as many as fit, but at least the first. All arrays (n,), patches of a column in turn."""
    totals = np.cumsum(sizes)
    before = (totals - sizes)[np.flatnonzero(nth == 0)]
    return np.asarray((totals - before[column] <= max_bytes) | (nth == 0))


def _columns(requests: Sequence[sampler.Request], lengths: tiles.Ints, table: tiles.Ints, patch: tiles.Ints) -> list[Column]:
    """Columns of so many patches each; `patch` says which each row of the table is of, ascending."""
    owners, kept = tiles.numbered(table, np.repeat(np.arange(len(lengths)), lengths)[patch])
    starts, sizes = table[kept, tiles.OFFSET].tolist(), table[kept, tiles.SIZE].tolist()
    ranges = itertools.pairwise(np.searchsorted(owners, np.arange(len(lengths) + 1)).tolist())
    found = iter(_patches(requests, table, patch))
    return [
        Column(tuple(itertools.islice(found, length)), starts[start:end], sizes[start:end])
        for length, (start, end) in zip(lengths.tolist(), ranges, strict=True)
    ]
