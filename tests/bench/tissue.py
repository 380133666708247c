"""Slides for benchmarks, as large as scanners write them: 80,000 x 80,000 px, levels 1/4/16, 104,000 tiles, in a file of 40 MB.

The tiles of a level lie in the file row by row, but after POOL of them the directory starts over: neighbours on the slide are neighbours in
the file, as in a real one, and a reader that keeps tiles by their place on the slide (OpenSlide keeps 32 MiB) finds none a second time.
A tile is real tissue, cut from the real slide at that level's scale, turned, restained and compressed on its own.

What the repetition changes: compressed tables of tile sizes are smaller than real ones, and of the 64 tiles that a column of 16 patches
touches about one is asked for twice.
"""

import functools
import pathlib
from typing import BinaryIO

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from tests.trainer import slides

EDGE_PX, TILE_PX, STAINS = 80_000, 256, 12
POOL = {1: 1600, 4: 400, 16: 200}  # distinct tiles by downsample
MPP = 0.25
GLASS, GLASS_SHARE = 215, 0.25  # green values above it are no tissue; how much of a tile may be that
SHORT, LONG, RATIONAL = 3, 4, 5  # TIFF's types

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]


def write(path: pathlib.Path, edge_px: int = EDGE_PX, seed: int = 0) -> pathlib.Path:
    """A pyramid of `edge_px` squared in um/px of MPP, 4 MPP and 16 MPP; about 17 kB a tile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(4))
        levels = [(edge_px // factor, factor, *_written(file, _tiles(random, factor, edge_px))) for factor in POOL]
        link = 4
        for edge, factor, offsets, sizes in levels:
            link = _directory(file, link, _fields(edge, factor, offsets, sizes))
    return path


def _tiles(random: np.random.Generator, factor: int, edge_px: int) -> list[bytes]:
    return [_compress(_tile(random, factor), random) for _ in range(min(POOL[factor], _across(edge_px // factor) ** 2))]


def _across(edge_px: int) -> int:
    return -(-edge_px // TILE_PX)


def _written(file: BinaryIO, tiles: list[bytes]) -> tuple[Ints, Ints]:
    """Append tiles, one after the other; their offsets and sizes in bytes."""
    sizes = np.array([len(tile) for tile in tiles], dtype=np.int64)
    first = file.tell()
    file.write(b"".join(tiles))
    return first + np.cumsum(sizes) - sizes, sizes


def _fields(edge_px: int, factor: int, offsets: Ints, sizes: Ints) -> dict[int, tuple[int, list[int] | Ints]]:
    """A level's TIFF tags, ascending: type and values. The tiles of the pool again and again, row by row."""
    order = np.arange(_across(edge_px) ** 2) % len(sizes)
    pixels_a_cm = [round(10_000 / MPP / factor), 1]
    return {
        254: (LONG, [int(factor > 1)]),  # a reduced version of another page
        256: (LONG, [edge_px]),
        257: (LONG, [edge_px]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),  # JPEG
        262: (SHORT, [6]),  # YCbCr
        277: (SHORT, [3]),
        282: (RATIONAL, pixels_a_cm),
        283: (RATIONAL, pixels_a_cm),
        284: (SHORT, [1]),
        296: (SHORT, [3]),  # centimetre
        322: (LONG, [TILE_PX]),
        323: (LONG, [TILE_PX]),
        324: (LONG, offsets[order]),
        325: (LONG, sizes[order]),
        530: (SHORT, [2, 2]),  # chroma at half the resolution
    }


def _directory(file: BinaryIO, link: int, fields: dict[int, tuple[int, list[int] | Ints]]) -> int:
    """Append a directory and write its offset where the one before ends, at `link`; where the next one's offset goes."""
    entries = b""
    for tag, (kind, values) in fields.items():
        data = np.asarray(values, dtype="<u2" if kind == SHORT else "<u4").tobytes()
        count = len(values) // (2 if kind == RATIONAL else 1)
        inline = data if len(data) <= 4 else file.tell().to_bytes(4, "little")
        file.write(data if len(data) > 4 else b"")
        entries += np.array([tag, kind], dtype="<u2").tobytes() + count.to_bytes(4, "little") + inline.ljust(4, b"\0")
    at = file.tell()
    file.write(len(fields).to_bytes(2, "little") + entries + bytes(4))
    file.seek(link)
    file.write(at.to_bytes(4, "little"))
    file.seek(0, 2)
    return file.tell() - 4


def _tile(random: np.random.Generator, factor: int) -> Pixels:
    source = _stained(factor)[random.integers(STAINS)]
    corners = _tissue_corners(factor)
    y, x = corners[random.integers(len(corners))]
    turned = np.rot90(source[y : y + TILE_PX, x : x + TILE_PX], int(random.integers(4)))
    return np.ascontiguousarray(turned[:, :: random.choice((1, -1))])


def _compress(pixels: Pixels, random: np.random.Generator) -> bytes:
    quality = int(random.integers(70, 81))
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420"))


@functools.cache
def _tissue_corners(factor: int) -> Ints:
    """(y, x) of the tiles that hold no glass to speak of, at coarse scales of those that hold least, every 8 px: shape (n, 2)."""
    glass = cv2.boxFilter((_scaled(factor)[..., 1] > GLASS).astype(np.float32), -1, (TILE_PX, TILE_PX), anchor=(0, 0))
    glass = glass[: -TILE_PX + 1 : 8, : -TILE_PX + 1 : 8]
    return np.argwhere(glass < max(GLASS_SHARE, float(np.quantile(glass, 0.1)))) * 8


@functools.cache
def _scaled(factor: int) -> Pixels:
    """The real slide, averaged; mirrored at its edges where it gets too small to cut tiles from."""
    base = slides.decoded_levels(slides.CMU)[0]
    small = np.asarray(cv2.resize(base, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    below, right = (max(0, 2 * TILE_PX - n) for n in small.shape[:2])
    return np.pad(small, ((0, below), (0, right), (0, 0)), mode="symmetric")


@functools.cache
def _stained(factor: int) -> list[Pixels]:
    """The real slide under other stains: optical densities mixed by matrices near the identity."""
    density = -np.log((_scaled(factor).astype(np.float32) + 1) / 256)
    random = np.random.default_rng(0)
    matrices = np.eye(3) * random.uniform(0.8, 1.2, (STAINS, 1, 3)) + random.uniform(0, 0.1, (STAINS, 3, 3))
    return [np.clip(np.exp(-density @ m.astype(np.float32)) * 256 - 1, 0, 255).astype(np.uint8) for m in matrices]
