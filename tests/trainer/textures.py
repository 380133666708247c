"""Synthetic slides made of real tissue, whose tiles differ in texture and not in colour: what a small model can learn without labels.

Every tile is cut out of the real slide's tissue, turned, given the texture of its class, stained by a matrix of its own and recompressed
on its own (quality 70 to 80), so that nothing but the texture tells the classes apart.
"""

import functools
import io
import pathlib

import cv2
import numpy as np
import tifffile
from PIL import Image

from patho_trainer.data import slide
from tests.trainer import slides

CLASSES = ("plain", "fibres", "cells", "holes")
TILE_PX, TILES, MPP = 128, 4, 0.5  # a slide is TILES x TILES tiles
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@functools.cache
def tissue() -> Pixels:
    """Level 0 of the real slide, uint8 RGB."""
    source = slide.open(str(slides.CMU))
    return source.read((0, 0), 2200, source.mpp)


def write(folder: pathlib.Path, count: int, seed: int = 0) -> list[tuple[pathlib.Path, list[int]]]:
    """Write slides; returns each one's path and the classes of its tiles, row by row. Each slide has as many tiles of every class."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_slide(folder / f"{number:03d}.tif", np.random.default_rng([seed, number])) for number in range(count)]


def _write_slide(path: pathlib.Path, random: np.random.Generator) -> tuple[pathlib.Path, list[int]]:
    labels = random.permutation(np.arange(TILES * TILES) % len(CLASSES)).tolist()
    tiles = [tile(label, random) for label in labels]
    rows = [np.concatenate(tiles[i : i + TILES], axis=1) for i in range(0, len(tiles), TILES)]
    base = np.concatenate(rows)
    pixels_a_cm = 10_000 / MPP
    with tifffile.TiffWriter(path) as writer:
        for number in range(2):
            level = base if number == 0 else cv2.resize(base, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            resolution = (pixels_a_cm / 2**number, pixels_a_cm / 2**number)
            writer.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=number,
                metadata=None,
                resolution=resolution,
                resolutionunit="CENTIMETER",
            )
    return path, labels


def tile(label: int, random: np.random.Generator) -> Pixels:
    """A tile of a class."""
    density = _texture(CLASSES[label], _piece(random), random)
    return _recompressed(_stained(density, random), random)


def _piece(random: np.random.Generator) -> Floats:
    """Optical density (TILE_PX, TILE_PX, 3) of tissue at a random place, turned by a random angle; mostly tissue."""
    pixels, edge = tissue(), int(TILE_PX * 1.5)
    while True:
        y, x = (int(v) for v in random.integers(0, np.array(pixels.shape[:2]) - edge))
        piece = pixels[y : y + edge, x : x + edge]
        if (piece.min(axis=2) < 215).mean() > 0.7:
            break
    turn = cv2.getRotationMatrix2D((edge / 2, edge / 2), float(random.uniform(0, 360)), 1.0)
    turned = cv2.warpAffine(piece, turn, (edge, edge), borderMode=cv2.BORDER_REFLECT)
    margin = (edge - TILE_PX) // 2
    inner = turned[margin : margin + TILE_PX, margin : margin + TILE_PX].astype(np.float32)
    return -np.log((inner + 1) / 256)


def _texture(name: str, density: Floats, random: np.random.Generator) -> Floats:
    """Give tissue the texture of a class; its mean density stays."""
    changed = {"plain": _plain, "fibres": _fibres, "cells": _cells, "holes": _holes}[name](density, random)
    return changed * (density.mean() / changed.mean())


def _plain(density: Floats, _: np.random.Generator) -> Floats:
    return density


def _fibres(density: Floats, random: np.random.Generator) -> Floats:
    """Smeared along a random direction."""
    length = 21
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), float(random.uniform(0, 180)), 1.0)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return 1.6 * cv2.filter2D(density, -1, kernel / kernel.sum()) - 0.6 * cv2.blur(density, (31, 31))


def _cells(density: Floats, random: np.random.Generator) -> Floats:
    """Small round nuclei."""
    return density * (1 + 1.2 * _discs(random, count=90, radius_px=(3, 5)))


def _holes(density: Floats, random: np.random.Generator) -> Floats:
    """Round empty spaces."""
    return density * (1 - 0.9 * _discs(random, count=14, radius_px=(9, 14)))


def _discs(random: np.random.Generator, count: int, radius_px: tuple[int, int]) -> Floats:
    mask = np.zeros((TILE_PX, TILE_PX), np.float32)
    for x, y in random.integers(0, TILE_PX, (count, 2)).tolist():
        cv2.circle(mask, (x, y), int(random.integers(radius_px[0], radius_px[1] + 1)), 1.0, -1)
    return cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]


def _stained(density: Floats, random: np.random.Generator) -> Pixels:
    """The same tissue by another laboratory: absorption of the colours mixed at random."""
    mix = np.eye(3) + random.uniform(-0.25, 0.25, (3, 3))
    strength = random.uniform(0.7, 1.3)
    pixels = 256 * np.exp(-np.clip(density @ (strength * mix.T), 0, None)) - 1
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _recompressed(pixels: Pixels, random: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(70, 81)))
    return np.asarray(Image.open(file))
