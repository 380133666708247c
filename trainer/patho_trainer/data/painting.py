"""Bytes of tiles to the pixels of a patch, in threads: decode, put together, resample. The codecs release the GIL."""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import openslide

from patho_trainer.data import catalog, columns, copies, decode, native, stats, storage, tiles

Bytes = Sequence[storage.Buffer]  # of tiles, as their table numbers them

# stained colour in OpenCV's 8-bit HSV, and the share of it that a patch needs: Virchow (arXiv 2309.07778), Midnight (arXiv 2504.05186)
STAINED_HSV = (90, 8, 103), (180, 255, 255)
STAINED_SHARE = 0.6


class Job(NamedTuple):
    """One patch to paint into `out`, uint8 (size_px, size_px, 3)."""

    slide: catalog.Slide
    patch: columns.Patch
    data: Bytes
    out: decode.Pixels


def paint(jobs: Sequence[Job], local: copies.Copies, counters: stats.Stats) -> list[bool]:
    """Paint some patches one after the other; False where a tile is undecodable or a slide gone.

    Adds to the stages `decode` and `resize`; the native core, which averages while it decodes, to the former alone.
    """
    fit = [_is_native(job) for job in jobs]
    done, spent = native.paint([_native(job, job.out) for job, fits in zip(jobs, fit, strict=True) if fits])
    counters.spend("decode", spent)
    painted = iter(done)
    good = [fits and next(painted) for fits in fit]
    others = iter(_paint([job for job, is_done in zip(jobs, good, strict=True) if not is_done], local, counters))
    return [is_done or next(others) for is_done in good]


def _is_native(job: Job) -> bool:
    request = job.patch.request
    return request.source_px % request.size_px == 0 and native.takes(job.slide.levels[request.level], request.source_px)


def _native(job: Job, out: decode.Pixels) -> native.Job:
    request = job.patch.request
    return native.job(job.slide.levels[request.level], job.patch.tiles, job.data, request.source_px, out)


def _paint(jobs: Sequence[Job], local: copies.Copies, counters: stats.Stats) -> list[bool]:
    """As `paint`, one by one in Python."""
    results, decoded, resized = [], 0.0, 0.0
    for job in jobs:
        start = time.perf_counter()
        try:
            region = _region(job, local)
        except (decode.Undecodable, openslide.OpenSlideError, storage.NotFound):  # a copy that is needed again, of what is gone
            results.append(False)
            continue
        middle = time.perf_counter()
        if region is not job.out:
            cv2.resize(region, job.out.shape[1::-1], dst=job.out, interpolation=cv2.INTER_AREA)
        results.append(True)
        decoded, resized = decoded + middle - start, resized + time.perf_counter() - middle
    counters.spend("decode", decoded)
    counters.spend("resize", resized)
    return results


def _region(job: Job, local: copies.Copies) -> decode.Pixels:
    """The region at its own resolution: straight in `out` where nothing is resampled."""
    request = job.patch.request
    edge = request.source_px
    if job.slide.reader == "openslide":
        region = local.read(job.slide, request.level, request.x, request.y, edge, edge)
        if edge == request.size_px:
            job.out[:] = region
            return job.out
        return region
    region = job.out if edge == request.size_px else _scratch("region", edge, edge)
    level = job.slide.levels[request.level]
    if native.takes(level, edge) and all(native.paint([_native(job, region)])[0]):
        return region
    for tile in itertools.starmap(tiles.TileRead, job.patch.tiles.tolist()):
        _place(level, tile, job.data[tile.buffer] if tile.size else b"", region)
    return region


def _place(level: catalog.Level, tile: tiles.TileRead, data: storage.Buffer | bytes, region: decode.Pixels) -> None:
    """A tile's part of a region; decoded right there where the region is that tile."""
    if region.shape == (level.tile_height, level.tile_width, 3) and tile.target == tile.source:
        pixels = decode.tile(level, data, region)
        if np.may_share_memory(pixels, region):
            return
    else:
        pixels = decode.tile(level, data, _scratch("tile", level.tile_height, level.tile_width))
    region[tile.target] = pixels[tile.source]


def is_stained(patch: decode.Pixels) -> bool:
    """Whether enough of a patch, uint8 RGB (h, w, 3), has stained colour: not glass, fat, blood or ink."""
    stained = cv2.inRange(cv2.cvtColor(patch, cv2.COLOR_RGB2HSV), *(np.array(bound) for bound in STAINED_HSV))
    return cv2.countNonZero(stained) >= STAINED_SHARE * stained.size


_kept = threading.local()


def _scratch(use: str, height: int, width: int) -> decode.Pixels:
    """Memory of this thread, uint8 (height, width, 3), good until it is asked for again."""
    array: decode.Pixels | None = getattr(_kept, use, None)
    if array is None or array.shape != (height, width, 3):
        array = np.empty((height, width, 3), dtype=np.uint8)
        setattr(_kept, use, array)
    return array
