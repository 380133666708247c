"""Slides for benchmarks: real tissue, cut from the real slide, each tile turned, restained and compressed on its own; levels 1/4/16."""

import functools
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from tests.trainer import slides

TILE_PX, FACTORS, STAINS = 256, (1, 4, 16), 12
MPP = 0.25
GLASS = 215  # green values above it are no tissue

Pixels = NDArray[np.uint8]


def write(path: pathlib.Path, edge_px: int = 10_240, seed: int = 0) -> pathlib.Path:
    """A pyramid of `edge_px` squared, a multiple of 4096 or all of it tiles; about 15 kB a tile of level 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    coarse = [np.full((edge_px // f, edge_px // f, 3), 243, dtype=np.uint8) for f in FACTORS[1:]]
    with tifffile.TiffWriter(path) as writer:
        _write_level(writer, _base(random, edge_px, coarse), edge_px, 1)
        for factor, pixels in zip(FACTORS[1:], coarse, strict=True):
            _write_level(writer, _cut(pixels, random), len(pixels), factor)
    return path


def _write_level(writer: tifffile.TiffWriter, tiles: Iterator[bytes], edge_px: int, factor: int) -> None:
    pixels_a_cm = 10_000 / MPP / factor
    writer.write(
        tiles,
        shape=(edge_px, edge_px, 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        subfiletype=int(factor > 1),
        resolution=(pixels_a_cm, pixels_a_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
        software=False,
    )


def _base(random: np.random.Generator, edge_px: int, coarse: list[Pixels]) -> Iterator[bytes]:
    """Compressed tiles of level 0; leaves their averages in the canvases of the coarser levels."""
    for y in range(0, edge_px, TILE_PX):
        for x in range(0, edge_px, TILE_PX):
            pixels = _tile(random)
            for factor, canvas in zip(FACTORS[1:], coarse, strict=True):
                size = TILE_PX // factor
                canvas[y // factor :, x // factor :][:size, :size] = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
            yield _compress(pixels, random)


def _cut(pixels: Pixels, random: np.random.Generator) -> Iterator[bytes]:
    for y in range(0, len(pixels), TILE_PX):
        for x in range(0, len(pixels), TILE_PX):
            tile = pixels[y : y + TILE_PX, x : x + TILE_PX]
            below, right = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
            yield _compress(np.pad(tile, ((0, below), (0, right), (0, 0)), mode="edge"), random)


def _tile(random: np.random.Generator) -> Pixels:
    source = _stained()[random.integers(STAINS)]
    y, x = _tissue_corners()[random.integers(len(_tissue_corners()))]
    turned = np.rot90(source[y : y + TILE_PX, x : x + TILE_PX], int(random.integers(4)))
    return np.ascontiguousarray(turned[:, :: random.choice((1, -1))])


def _compress(pixels: Pixels, random: np.random.Generator) -> bytes:
    quality = int(random.integers(70, 81))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorspace="RGB", colorsubsampling="420"))


@functools.cache
def _tissue_corners() -> NDArray[np.int64]:
    """(y, x) of the tiles of the real slide that hold no glass to speak of, every 8 px: shape (n, 2)."""
    green = slides.decoded_levels(slides.CMU)[0][..., 1]
    glass = cv2.boxFilter((green > GLASS).astype(np.float32), -1, (TILE_PX, TILE_PX), anchor=(0, 0))
    inside = glass[:-TILE_PX:8, :-TILE_PX:8]
    return np.argwhere(inside < 0.25) * 8


@functools.cache
def _stained() -> list[Pixels]:
    """The real slide under other stains: optical densities mixed by matrices near the identity."""
    (density,) = (-np.log((level.astype(np.float32) + 1) / 256) for level in slides.decoded_levels(slides.CMU)[:1])
    random = np.random.default_rng(0)
    matrices = np.eye(3) * random.uniform(0.8, 1.2, (STAINS, 1, 3)) + random.uniform(0, 0.1, (STAINS, 3, 3))
    return [np.clip(np.exp(-density @ m.astype(np.float32)) * 256 - 1, 0, 255).astype(np.uint8) for m in matrices]
