"""Reads the directories of a tiled TIFF, once: levels, where every tile lies, um/px. What is not plain is left to OpenSlide."""

import dataclasses
import re
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from patho_trainer.data import catalog, decode

# levels in an order of their own, overlapping tiles, or padded sizes: OpenSlide knows these
NOT_PLAIN = ("is_ndpi", "is_scn", "is_bif", "is_philips", "is_vista")
MPP_RANGE = (0.02, 20.0)  # a microscope's; 72 dpi of a photograph would be 353
ASPECT_TOLERANCE = 0.02
UM_PER_UNIT = {2: 25400.0, 3: 10000.0}  # ResolutionUnit: inch, centimetre

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
        if any(getattr(tiff, flag) for flag in NOT_PLAIN):
            return None
        pages = _level_pages(tiff)
        if not pages or not all(_is_plain(page) for page in pages):
            return None
        mpp = mpp or vendor_mpp(pages[0].description) or _resolution_mpp(pages[0])
        levels = tuple(_level(page, pages[0], mpp) for page in pages)
        return Pyramid(levels, tuple(_table(page, level, size) for page, level in zip(pages, levels, strict=True)))


def _is_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    return magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _level_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The first tiled page and every later one that is a smaller picture of the same shape, fine to coarse."""
    pages = [page for page in _all_pages(tiff) if page.is_tiled]
    if not pages:
        return []
    first = pages[0]
    levels = [first]
    for page in sorted(pages[1:], key=lambda p: -p.imagewidth):
        across, down = first.imagewidth / page.imagewidth, first.imagelength / page.imagelength
        rounding = 1.5 * max(across / page.imagewidth, down / page.imagelength)  # sizes are whole pixels
        same_shape = abs(across / down - 1) <= max(ASPECT_TOLERANCE, rounding)
        if same_shape and page.imagewidth < levels[-1].imagewidth:
            levels.append(page)
    return levels


def _all_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    found = []
    for page in tiff.pages:
        found.append(page.aspage())
        found.extend(sub.aspage() for sub in page.pages or ())
    return found


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


def _level(page: tifffile.TiffPage, first: tifffile.TiffPage, mpp: float) -> catalog.Level:
    """`downsample` is the mean of both directions', as in OpenSlide."""
    downsample = (first.imagewidth / page.imagewidth + first.imagelength / page.imagelength) / 2
    encoding = catalog.Encoding(
        compression=int(page.compression),
        photometric=int(page.photometric),
        samples=int(page.samplesperpixel),
        predictor=int(page.predictor),
        jpeg_tables=bytes(page.jpegtables or b""),
    )
    return catalog.Level(page.imagewidth, page.imagelength, downsample, mpp * downsample, page.tilewidth, page.tilelength, encoding)


def _table(page: tifffile.TiffPage, level: catalog.Level, size: int) -> tuple[Ints, Ints]:
    offsets, sizes = (np.array(values, dtype=np.int64) for values in (page.dataoffsets, page.databytecounts))
    if len(offsets) != level.rows * level.columns or len(sizes) != len(offsets):
        raise Rejected("Unreadable", f"{len(offsets)} tiles where {level.rows} x {level.columns} belong")
    beyond = int(np.count_nonzero(offsets + sizes > size))
    if beyond:
        raise Rejected("Truncated", f"the file ends after {size} bytes, before {beyond} of {len(sizes)} tiles of a level: upload it again")
    return offsets.reshape(level.rows, level.columns), sizes.reshape(level.rows, level.columns)


def vendor_mpp(description: str) -> float:
    """um/px out of an Aperio description (`|MPP = 0.2527|`) or OME-XML (`PhysicalSizeX`); 0 where there is none."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    if found:
        return plausible(float(found[1]))
    if "<OME" not in description:
        return 0.0
    pixels = ElementTree.fromstring(description.encode()).find(".//{*}Pixels")
    if pixels is None or pixels.get("PhysicalSizeXUnit", "\u00b5m") not in ("\u00b5m", "\u03bcm", "um"):
        return 0.0
    sizes = [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "XY"]
    return plausible(sum(sizes) / 2) if all(sizes) else 0.0


def _resolution_mpp(page: tifffile.TiffPage) -> float:
    """um/px out of the TIFF's own resolution, the mean of both directions; 0 where it is missing or no microscope's."""
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    unit = page.tags.get("ResolutionUnit")
    um = UM_PER_UNIT.get(int(unit.value) if unit else 2)
    if um is None or any(tag is None or not tag.value[0] for tag in tags):
        return 0.0
    return plausible(sum(um * tag.value[1] / tag.value[0] for tag in tags) / 2)


def plausible(mpp: float) -> float:
    """`mpp`, or 0 where no microscope has such a resolution."""
    return mpp if MPP_RANGE[0] <= mpp <= MPP_RANGE[1] else 0.0
