"""Stored tiles to pixels. Pure and without shared state: threads decode in parallel, the codecs release the GIL."""

import functools
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from patho_trainer.data import catalog

Pixels = NDArray[np.uint8]

# values of the TIFF tags Compression and PhotometricInterpretation
NONE, LZW, JPEG, DEFLATE, APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB = 1, 5, 7, 8, 33003, 33005
ADOBE_DEFLATE, JPEG2000, ZSTD, WEBP = 32946, 34712, 50000, 50001
RGB, YCBCR = 2, 6
BYTES: dict[int, Callable[[bytes], bytes | bytearray]] = {
    NONE: bytes,
    LZW: lambda data: imagecodecs.lzw_decode(data),
    DEFLATE: lambda data: imagecodecs.zlib_decode(data),
    ADOBE_DEFLATE: lambda data: imagecodecs.zlib_decode(data),
    ZSTD: lambda data: imagecodecs.zstd_decode(data),
}
IMAGES: dict[int, Callable[[bytes], Pixels]] = {
    APERIO_JPEG2000_YCBCR: imagecodecs.jpeg2k_decode,
    APERIO_JPEG2000_RGB: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
    WEBP: imagecodecs.webp_decode,
}
COMPRESSIONS = {JPEG, *BYTES, *IMAGES}

WHITE = 255
SOI, EOI, APP0 = b"\xff\xd8", b"\xff\xd9", b"\xff\xe0"
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # APP14 with transform 0: the components are R, G, B


class Undecodable(ValueError):
    """The bytes of a tile are not what the index says they are."""


def tile(level: catalog.Level, data: bytes | memoryview, out: Pixels | None = None) -> Pixels:
    """A stored tile, uint8 RGB (tile_height, tile_width, 3). No data is a tile that the file leaves out: background, white.

    `out`, contiguous and of that shape, is where a JPEG is decoded to, so that no memory is taken for it: look at the result only.
    Raises Undecodable.
    """
    shape = (level.tile_height, level.tile_width, 3)
    if not len(data):
        return np.full(shape, WHITE, dtype=np.uint8)
    try:
        pixels = _decode(level.encoding, data, shape, out)
    except Exception as error:  # codecs raise their own types, and many of them
        raise Undecodable(f"{type(error).__name__}: {error}") from error
    if pixels.shape != shape:
        raise Undecodable(f"a tile of shape {pixels.shape} where the slide says {shape}")
    return pixels


def _decode(encoding: catalog.Encoding, data: bytes | memoryview, shape: tuple[int, int, int], out: Pixels | None) -> Pixels:
    if encoding.compression == JPEG:
        return np.asarray(simplejpeg.decode_jpeg(jpeg_file(encoding, data), colorspace="RGB", buffer=out))
    if encoding.compression in IMAGES:
        pixels = np.asarray(IMAGES[encoding.compression](bytes(data)))
        return ycbcr_to_rgb(pixels) if encoding.compression == APERIO_JPEG2000_YCBCR else pixels
    flat = np.frombuffer(BYTES[encoding.compression](bytes(data)), np.uint8)
    pixels = flat[: shape[0] * shape[1] * shape[2]].reshape(shape)
    return np.add.accumulate(pixels, axis=1, dtype=np.uint8) if encoding.predictor == 2 else pixels


def jpeg_file(encoding: catalog.Encoding, data: bytes | memoryview) -> bytes | memoryview:
    """A whole JPEG file out of an abbreviated tile: the shared tables first, and the colour model where JPEG would guess wrongly."""
    head = jpeg_head(encoding)
    if head == SOI:
        return data
    body = memoryview(data)[2:]
    if encoding.photometric == RGB and bytes(body[:2]) == APP0:  # JFIF means YCbCr, and wins over Adobe's marker
        body = body[2 + int.from_bytes(body[2:4], "big") :]
    return b"".join((head, body))


def jpeg_head(encoding: catalog.Encoding) -> bytes:
    """What an abbreviated tile's own start is replaced by."""
    return _jpeg_head(encoding.jpeg_tables, encoding.photometric == RGB)


@functools.lru_cache(maxsize=256)
def _jpeg_head(tables: bytes, rgb: bool) -> bytes:
    return SOI + (ADOBE_RGB if rgb else b"") + tables.removeprefix(SOI).removesuffix(EOI)


def ycbcr_to_rgb(pixels: Pixels) -> Pixels:
    """Full-range BT.601 in libjpeg's 16-bit fixed point (jdcolor.c), as OpenSlide does for Aperio's JPEG 2000. (..., 3) to (..., 3)."""
    y, cb, cr = (pixels[..., i].astype(np.int32) for i in range(3))
    cb, cr = cb - 128, cr - 128
    half = 1 << 15
    red = y + ((91881 * cr + half) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + half) >> 16)
    blue = y + ((116130 * cb + half) >> 16)
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)
