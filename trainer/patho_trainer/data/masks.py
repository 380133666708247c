"""The user's own foreground: one picture of each whole slide, PNG or TIFF, non-zero is tissue. Pure: bytes in, masks out."""

import io
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from patho_trainer.data import manifest, tiff, tissue, urls

PNG = b"\x89PNG\r\n\x1a\n"
ASPECT_TOLERANCE = 0.02  # beside the rounding to whole pixels; a mask of another slide is rarely this near
MAX_PIXELS = 2**28  # decoded at once; the index keeps 8 um/px, of which the largest slides have 60 million

Picture = NDArray[Any]  # of any integer type, or bool


def url_of(pattern: str, entry: manifest.Entry) -> str:
    """Where a slide's mask lies: `{id}` is the manifest's id, `{name}` the slide's file name without its ending."""
    stem = urls.name(entry.url).rpartition(".")[0]
    return pattern.replace("{id}", entry.id).replace("{name}", stem)


def decode(data: bytes, url: str, rows: int, columns: int) -> tissue.Mask:
    """The mask at 8 um/px, bool (rows, columns): a pixel is tissue where at least half of it is. Raises Rejected (BadMask)."""
    try:
        picture = _png(data, url) if data.startswith(PNG) else _tiff(data, url, rows, columns)
    except tiff.Rejected:
        raise
    except Exception as error:  # codecs raise their own types, and many of them
        raise _bad(url, f"is no readable PNG or TIFF ({type(error).__name__}: {error})") from error
    found = _nonzero(picture)
    _check_shape(found, url, rows, columns)
    method = cv2.INTER_AREA if found.shape[0] >= rows else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(found.astype(np.float32), (columns, rows), interpolation=method) >= 0.5)


def _bad(url: str, what: str) -> tiff.Rejected:
    return tiff.Rejected("BadMask", f"the mask {url} {what}")


def _png(data: bytes, url: str) -> Picture:
    _check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), url)
    return np.asarray(imagecodecs.png_decode(data))


def _tiff(data: bytes, url: str, rows: int, columns: int) -> Picture:
    """The smallest page that is at least as fine as the index's mask, else the largest."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = sorted((page.aspage() for page in file.pages), key=lambda p: p.imagewidth)
        page = next((p for p in pages if p.imagelength >= rows and p.imagewidth >= columns), pages[-1])
        _check_size(page.imagewidth, page.imagelength, url)
        return np.asarray(page.asarray())


def _check_size(width: int, height: int, url: str) -> None:
    if width * height > MAX_PIXELS:
        raise _bad(url, f"has {width} x {height} px, more than {MAX_PIXELS:,}: write it at 8 um/px, which is what the index keeps")


def _nonzero(picture: Picture) -> tissue.Mask:
    """Any colour above zero; what is fully transparent is none. (rows, columns), or with 1 to 4 channels."""
    if picture.ndim == 2:
        return np.asarray(picture > 0)
    opaque = picture[..., -1] > 0 if picture.shape[-1] in (2, 4) else np.ones(picture.shape[:2], dtype=bool)
    colours = picture[..., :-1] if picture.shape[-1] in (2, 4) else picture
    return np.asarray((colours > 0).any(axis=-1) & opaque)


def _check_shape(found: tissue.Mask, url: str, rows: int, columns: int) -> None:
    across, down = found.shape[1] / columns, found.shape[0] / rows
    rounding = max(1 / edge for edge in (rows, columns, *found.shape))
    if abs(across / down - 1) > ASPECT_TOLERANCE + 2 * rounding:
        raise _bad(url, f"has {found.shape[1]} x {found.shape[0]} px, another shape than the whole slide (as {columns} x {rows})")
