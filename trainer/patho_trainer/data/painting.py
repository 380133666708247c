"""Bytes of tiles to the pixels of a patch, in threads: decode, put together, resample. The codecs release the GIL."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np
import openslide

from patho_trainer.data import catalog, columns, copies, decode, slide, stats, storage

Bytes = Mapping[int, storage.Buffer]  # of tiles, by offset in the file


@dataclasses.dataclass(frozen=True)
class Job:
    """One patch to paint into `out`, uint8 (size_px, size_px, 3)."""

    slide: catalog.Slide
    patch: columns.Patch
    data: Bytes
    out: decode.Pixels


def paint(jobs: Sequence[Job], local: copies.Copies, counters: stats.Stats) -> list[bool]:
    """Paint some patches one after the other; False where a tile is undecodable. Adds to the stages `decode` and `resize`."""
    results, decoded, resized = [], 0.0, 0.0
    for job in jobs:
        start = time.perf_counter()
        try:
            region = _region(job, local)
        except (decode.Undecodable, openslide.OpenSlideError):
            results.append(False)
            continue
        middle = time.perf_counter()
        if region is not job.out:
            job.out[:] = slide.resample(region, len(job.out))
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
        return local.read(job.slide, request.level, request.x, request.y, edge, edge)
    region = job.out if edge == request.size_px else np.empty((edge, edge, 3), dtype=np.uint8)
    for tile in job.patch.tiles:
        data = job.data[tile.offset] if tile.size else b""
        region[tile.target] = slide.decode_tile(job.slide, request.level, data)[tile.source]
    return region
