"""Reads the directories of a tiled TIFF, once: levels, where every tile lies, um/px. What is not plain is left to OpenSlide."""

import dataclasses
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from patho_trainer.data import catalog, decode, resolution

# levels in an order of their own, or overlapping tiles: OpenSlide knows these
NOT_PLAIN = ("is_ndpi", "is_scn", "is_bif", "is_vista")
XMP = 700  # tag
ASPECT_TOLERANCE = 0.02

Ints = NDArray[np.int64]


class Rejected(Exception):
    """A slide that cannot be used: `reason` in CamelCase, and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        """As the catalog keeps them."""
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Levels from fine to coarse (mpp 0 where unknown) and, for each, tile (offsets, sizes) in bytes of shape (rows, columns)."""

    levels: tuple[catalog.Level, ...]
    tables: tuple[tuple[Ints, Ints], ...]


def parse(file: BinaryIO, size: int, mpp: float = 0.0) -> Pyramid | None:
    """The pyramid of a file of `size` bytes, or None where it is no plain tiled TIFF. `mpp` um/px, where given, wins over the file's.

    Raises Rejected (Truncated) and whatever tifffile raises for a damaged file.
    """
    if not _is_tiff(file):
        return None
    with tifffile.TiffFile(file) as tiff:
        if any(getattr(tiff, flag) for flag in NOT_PLAIN) or _overlaps(tiff.pages.first):
            return None
        pages = _tiled_pages(tiff) if tiff.is_philips else _level_pages(_tiled_pages(tiff))
        if not pages or not all(_is_plain(page) for page in pages):
            return None
        shapes = _philips_shapes(pages) if tiff.is_philips else _shapes(pages)
        if len(shapes) != len(pages):
            return None
        mpp = mpp or resolution.vendor_mpp(pages[0].description) or resolution.tiff_mpp(pages[0])
        levels = tuple(_level(page, *shape, mpp) for page, shape in zip(pages, shapes, strict=True))
        return Pyramid(levels, tuple(_table(page, level, size) for page, level in zip(pages, levels, strict=True)))


def _overlaps(page: tifffile.TiffPage) -> bool:
    """Ventana (any software may have written its XML) and Trestle: their tiles overlap as metadata says."""
    xmp = page.tags.get(XMP)
    return page.software.startswith("MedScan") or (xmp is not None and "iScan" in str(xmp.value))


def _shapes(pages: list[tifffile.TiffPage]) -> list[tuple[int, int, float]]:
    """(width, height, downsample) of each level; the downsample is the mean of both directions', as in OpenSlide."""
    width, height = pages[0].imagewidth, pages[0].imagelength
    return [(p.imagewidth, p.imagelength, (width / p.imagewidth + height / p.imagelength) / 2) for p in pages]


def _philips_shapes(pages: list[tifffile.TiffPage]) -> list[tuple[int, int, float]]:
    """As `_shapes`, without the padding that Philips counts in, as OpenSlide has them; empty where the XML is no help."""
    spacings = resolution.philips_spacings(pages[0].description)
    if len(spacings) != len(pages):
        return []
    factors = [round((x / spacings[0][0] + y / spacings[0][1]) / 2) for x, y in spacings]
    return [(pages[0].imagewidth // factor, pages[0].imagelength // factor, float(factor)) for factor in factors]


def _is_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    return magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _level_pages(pages: list[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """The first page and every later one that is a smaller picture of the same shape, fine to coarse."""
    levels = pages[:1]
    for page in sorted(pages[1:], key=lambda p: -p.imagewidth):
        across, down = pages[0].imagewidth / page.imagewidth, pages[0].imagelength / page.imagelength
        rounding = 1.5 * max(across / page.imagewidth, down / page.imagelength)  # sizes are whole pixels
        same_shape = abs(across / down - 1) <= max(ASPECT_TOLERANCE, rounding)
        if same_shape and page.imagewidth < levels[-1].imagewidth:
            levels.append(page)
    return levels


def _tiled_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Those of sub-directories too, in the file's order."""
    found = []
    for page in tiff.pages:
        found += [page.aspage(), *(sub.aspage() for sub in page.pages or ())]
    return [page for page in found if page.is_tiled]


def _is_plain(page: tifffile.TiffPage) -> bool:
    colour = page.photometric == decode.RGB or (page.photometric == decode.YCBCR and page.compression == decode.JPEG)
    colour = colour or page.compression == decode.APERIO_JPEG2000_YCBCR
    return bool(
        page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == 1
        and page.imagedepth == 1
        and page.fillorder == 1
        and page.predictor in (1, 2)
        and page.compression in decode.COMPRESSIONS
        and colour
    )


def _level(page: tifffile.TiffPage, width: int, height: int, downsample: float, mpp: float) -> catalog.Level:
    encoding = catalog.Encoding(
        compression=int(page.compression),
        photometric=int(page.photometric),
        samples=int(page.samplesperpixel),
        predictor=int(page.predictor),
        jpeg_tables=bytes(page.jpegtables or b""),
    )
    return catalog.Level(width, height, downsample, mpp * downsample, page.tilewidth, page.tilelength, encoding)


def _table(page: tifffile.TiffPage, level: catalog.Level, size: int) -> tuple[Ints, Ints]:
    """As stored: rows and columns may be more than the level's, where padding counts as picture."""
    offsets, sizes = (np.array(values, dtype=np.int64) for values in (page.dataoffsets, page.databytecounts))
    rows, columns = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    if len(offsets) != rows * columns or len(sizes) != len(offsets) or rows < level.rows or columns < level.columns:
        raise Rejected("Unreadable", f"{len(offsets)} tiles where {level.rows} x {level.columns} belong")
    beyond = int(np.count_nonzero(offsets + sizes > size))
    if beyond:
        raise Rejected("Truncated", f"the file ends after {size} bytes, before {beyond} of {len(sizes)} tiles of a level: upload it again")
    return offsets.reshape(rows, columns), sizes.reshape(rows, columns)
