"""Open a slide by its url, and read pixels of it.

    s = slide.open("gs://bucket/a.svs")
    s.dimensions, s.mpp, s.levels        # level-0 (width, height) px; um/px; [(mpp, width, height)]
    s.read((x, y), size_px, mpp)         # level-0 top-left px -> uint8 RGB (size_px, size_px, 3)

Level 0 equals OpenSlide's pixels byte for byte; coarser levels are the stored ones, never interpolated (OpenSlide does interpolate
where a downsample is no integer). Beyond the slide's edge there is white.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import catalog, copies, decode, ranged, record, resolution, storage, tiff, tiles

Pixels = NDArray[np.uint8]
Undecodable, Rejected = decode.Undecodable, tiff.Rejected

MPP_TOLERANCE = 0.05  # as spec.patches.mppTolerance
BAND_BYTES = 64 * 2**20  # pixels in memory while a thumbnail is made
# what tifffile cannot or need not parse
OPENSLIDE_KINDS = ("ndpi", "mrxs", "dcm", "czi", "scn", "bif", "vms", "vmu", "svslide")


def plan(slide: catalog.Slide, places: record.Record, level: int, x: int, y: int, width: int, height: int) -> list[tiles.TileRead]:
    """The tiles of a region of a level, row by row; (x, y) and sizes in pixels of that level. What is off the slide needs no tile."""
    shape = slide.levels[level]
    region = x, y, width, height, shape.width, shape.height, shape.tile_width, shape.tile_height
    found = tiles.touched(tiles.Regions(*(np.array([number], dtype=np.int64) for number in region)))
    found.table[:, tiles.OFFSET], found.table[:, tiles.SIZE] = places.at(level, found.row, found.column)
    return [tiles.TileRead(*row) for row in found.table.tolist()]


def decode_tile(slide: catalog.Slide, level: int, data: bytes | memoryview) -> Pixels:
    """A stored tile, uint8 RGB (tile_height, tile_width, 3). Raises Undecodable."""
    return decode.tile(slide.levels[level], data)


def assemble(
    slide: catalog.Slide, level: int, reads: Sequence[tiles.TileRead], data: Sequence[bytes | memoryview], width: int, height: int
) -> Pixels:
    """The region that `plan` was asked for, uint8 RGB (height, width, 3), out of its tiles' bytes. Raises Undecodable."""
    region = np.full((height, width, 3), decode.WHITE, dtype=np.uint8)
    for read, stored in zip(reads, data, strict=True):
        region[read.target] = decode_tile(slide, level, stored)[read.source]
    return region


def resample(region: Pixels, size_px: int) -> Pixels:
    """A square region brought to (size_px, size_px, 3) by averaging areas; as it is where the size fits."""
    if region.shape[:2] == (size_px, size_px):
        return region
    return np.asarray(cv2.resize(region, (size_px, size_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)


class Opened:
    """An open slide. `facts` is its row of the catalog, `record` its tile positions. Thread-safe."""

    def __init__(self, facts: catalog.Slide, places: record.Record, bucket: storage.Bucket, local: copies.Copies) -> None:
        """For a slide of an index: its row and its record."""
        self.facts = facts
        self.record = places
        self._bucket = bucket
        self._copies = local

    @property
    def dimensions(self) -> tuple[int, int]:
        """Level-0 (width, height) in pixels."""
        return self.facts.width, self.facts.height

    @property
    def mpp(self) -> float:
        """Level-0 um/px."""
        return self.facts.mpp

    @property
    def levels(self) -> list[tuple[float, int, int]]:
        """(um/px, width px, height px) of each level, fine to coarse."""
        return [(level.mpp, level.width, level.height) for level in self.facts.levels]

    def read(self, xy: tuple[int, int], size_px: int, mpp: float) -> Pixels:
        """A square at a resolution: `xy` level-0 top-left px, result uint8 RGB (size_px, size_px, 3).

        A level within 5 % of `mpp` is read as it is; else the next finer one is area-averaged. White beyond the slide.
        Raises InvalidConfiguration where the slide would have to be upsampled, Undecodable for a damaged tile.
        """
        offer = catalog.offer(self.facts.levels, pretrain.Magnification(mpp=mpp), MPP_TOLERANCE)
        if offer is None:
            raise errors.InvalidConfiguration(f"{self.facts.url} has {self.mpp:.4g} um/px and is never upsampled: ask for at least that")
        scale, source_px = self.facts.levels[offer.level].downsample, offer.source_px(size_px)
        x, y = round(xy[0] / scale), round(xy[1] / scale)
        return resample(self.read_level(offer.level, x, y, source_px, source_px), size_px)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A region of a level, uint8 RGB (height, width, 3); (x, y) in pixels of that level."""
        if self.facts.reader == "openslide":
            return self._copies.read(self.facts, level, x, y, width, height)
        reads = plan(self.facts, self.record, level, x, y, width, height)
        data = self._bucket.read_ranges(self.facts.url, [r.offset for r in reads], [r.size for r in reads])
        return assemble(self.facts, level, reads, data, width, height)

    def thumbnail(self, rows: int, columns: int) -> Pixels:
        """The whole slide area-averaged to uint8 RGB (rows, columns, 3), out of the coarsest level that is fine enough; in bands."""
        fine = [i for i, level in enumerate(self.facts.levels) if level.width >= columns * 0.95 and level.height >= rows * 0.95]
        level = max(fine, default=0)
        shape = self.facts.levels[level]
        factor = max(1, min(shape.width // columns, shape.height // rows))
        if shape.tile_height:  # bands of whole tiles, which a factor divides: nothing is decoded twice
            factor = next(f for f in range(factor, 0, -1) if shape.tile_height % f == 0)
        unit = shape.tile_height or factor
        step = max(1, BAND_BYTES // (3 * shape.width * unit)) * unit
        bands = []
        for y in range(0, shape.height, step):
            band = self.read_level(level, 0, y, shape.width, min(step, shape.height - y))
            bands.append(_shrink(band, factor))
        return np.asarray(cv2.resize(np.concatenate(bands), (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _shrink(band: Pixels, factor: int) -> Pixels:
    """Every factor x factor pixels to their mean; what is left over at the end to theirs."""
    size = max(1, round(band.shape[1] / factor)), max(1, round(band.shape[0] / factor))
    return np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def open(url: str, storage_options: Mapping[str, Any] | None = None, bucket: storage.Bucket | None = None, mpp: float = 0.0) -> Opened:
    """Open a slide at gs:// s3:// az:// http(s):// file:// or a path; `mpp` um/px, where given, wins over the file's own.

    `storage_options` as fsspec's filesystems or obstore name them. Raises NotFound, and InvalidConfiguration for one that is no
    readable slide or does not say its resolution.
    """
    bucket = bucket or storage.from_options(storage_options or {})
    try:
        return inspect(copies.identity(bucket, url), bucket, copies.Copies(bucket), mpp)
    except Rejected as rejected:
        raise errors.InvalidConfiguration(f"{url} cannot be used ({rejected.reason}): {rejected}") from rejected


def inspect(info: storage.ObjectInfo, bucket: storage.Bucket, local: copies.Copies, mpp: float = 0.0) -> Opened:
    """Parse a slide: 3 to 8 small requests for a tiled TIFF, a whole download for anything else. Raises Rejected with the reason."""
    facts = catalog.Slide(id=info.url, url=info.url, size=info.size, etag=info.etag)
    pyramid = None if info.url.lower().endswith(OPENSLIDE_KINDS) else _pyramid(info, bucket, mpp)
    if pyramid:
        places = record.encode(pyramid.tables, np.zeros((0, 0), dtype=bool))
        facts = dataclasses.replace(facts, reader="tiff", mpp=pyramid.levels[0].mpp, levels=pyramid.levels)
    else:
        places = record.encode([], np.zeros((0, 0), dtype=bool))
        levels = _openslide_levels(facts, local, mpp)
        facts = dataclasses.replace(facts, reader="openslide", mpp=levels[0].mpp, levels=levels)
    if not facts.mpp:
        raise Rejected("NoMpp", "the file does not say how many um a square pixel is: give a column `mpp` in the manifest")
    return Opened(facts, record.Record(places), bucket, local)


def _pyramid(info: storage.ObjectInfo, bucket: storage.Bucket, mpp: float) -> tiff.Pyramid | None:
    try:
        return tiff.parse(ranged.RangedFile(bucket, info.url, info.size), info.size, mpp)  # type: ignore[arg-type]  # a raw file will do
    except (errors.PathoError, Rejected):
        raise
    except Exception as error:  # tifffile raises whatever a damaged file leads to
        raise Rejected("Unreadable", f"damaged TIFF ({type(error).__name__}: {error})") from error


def _openslide_levels(facts: catalog.Slide, local: copies.Copies, mpp: float) -> tuple[catalog.Level, ...]:
    try:
        with local.open(facts.url, facts.etag) as handle:
            sizes, scales = handle.level_dimensions, handle.level_downsamples
            found = [float(handle.properties.get(name, 0)) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
    except openslide.OpenSlideError as error:
        raise Rejected("Unreadable", f"OpenSlide cannot read it: {error}") from error
    mpp = mpp or resolution.square(*found)
    return tuple(catalog.Level(w, h, scale, mpp * scale) for (w, h), scale in zip(sizes, scales, strict=True))
