"""Columns: the patches that one slot takes from one slide in the steps ahead, and the byte ranges that they need. Pure.

A column is fetched by one call, because one call for 16 ranges costs half the CPU time of 16 calls for one.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from patho_trainer.data import catalog as catalogs
from patho_trainer.data import record, sampler
from patho_trainer.data import slide as slides


class Patch(NamedTuple):
    """A request and the stored tiles that it touches (none for a slide that OpenSlide reads)."""

    request: sampler.Request
    tiles: tuple[slides.TileRead, ...]

    @property
    def bytes(self) -> int:
        """Compressed size."""
        return sum(tile.size for tile in self.tiles)


Column = tuple[Patch, ...]  # consecutive patches of one slot, all of one slide


def ranges(patches: Iterable[Patch]) -> tuple[list[int], list[int]]:
    """Starts and sizes in bytes of all distinct tiles, in the order of the file."""
    found = sorted({(tile.offset, tile.size) for patch in patches for tile in patch.tiles if tile.size})
    return [start for start, _ in found], [size for _, size in found]


def patches(catalog: catalogs.Catalog, requests: Sequence[sampler.Request]) -> list[Patch]:
    """Find the tiles of some requests. Reads the records that are not in memory, all in one go."""
    tiled = [i for i in dict.fromkeys(r.slide for r in requests) if catalog.slides[i].reader == "tiff"]
    records = dict(zip(tiled, catalog.records(tiled), strict=True))
    return [Patch(r, _tiles(catalog.slides[r.slide], records.get(r.slide), r)) for r in requests]


def _tiles(slide: catalogs.Slide, places: record.Record | None, r: sampler.Request) -> tuple[slides.TileRead, ...]:
    return tuple(slides.plan(slide, places, r.level, r.x, r.y, r.source_px, r.source_px)) if places else ()


def ahead(plan: sampler.Plan, first: ArrayLike, slots: Sequence[int], stop_step: int | None, max_bytes: int) -> list[Column]:
    """One column for each slot, from step `first` (one for all, or one each) to the end of its window (or of the run).

    A column is cut where it would exceed `max_bytes`.
    """
    starts = np.broadcast_to(np.asarray(first, dtype=np.int64), len(slots))
    lengths = plan.steps_left(starts, slots)
    if stop_step is not None:
        lengths = np.minimum(lengths, stop_step - starts)
    steps = np.concatenate([np.arange(step, step + n) for step, n in zip(starts, lengths, strict=True)])
    found = iter(patches(plan.catalog, plan.draw(steps, np.repeat(slots, lengths))))
    return [_cut(list(itertools.islice(found, n)), max_bytes) for n in lengths]


def _cut(row: Sequence[Patch], max_bytes: int) -> Column:
    """As many as fit, but at least one."""
    kept: list[Patch] = []
    total = 0
    for patch in row:
        total += patch.bytes
        if kept and total > max_bytes:
            break
        kept.append(patch)
    return tuple(kept)
