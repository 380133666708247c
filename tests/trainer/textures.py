"""Synthetic slides made of real tissue, whose tiles differ in the arrangement of their cells: what a small model can learn without labels.

Every tile is cut out of the real slide's tissue, turned, evened out, given the texture of its class, and then photographed by a
laboratory of its own: hue, saturation, contrast, brightness, blur, noise and compression (quality 70 to 80) change from tile to tile by
more than the texture does. So nothing but the arrangement tells the classes apart, and what hides it is what augmentation makes a model
blind for.
"""

import functools
import io
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
import tifffile
from PIL import Image

from patho_trainer.data import slide
from tests.trainer import slides

CLASSES = ("scattered", "clustered", "rings", "stripes", "large", "mesh")
TILE_PX, TILES, MPP = 128, 6, 0.5  # a slide is TILES x TILES tiles, each of one class
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
SUB_PX = 8  # OpenCV draws with fractions of a pixel: 2 ** 3 of them


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
    density = _evened(_piece(random))
    changed = density * (0.5 + 1.6 * _pattern(CLASSES[label], random)[..., None])
    changed *= density.mean() / changed.mean()
    transmitted = (256 * np.exp(-changed.clip(0, None)) - 1).clip(0, 255).astype(np.uint8)
    return _recompressed(_photographed(transmitted, random), random)


def _piece(random: np.random.Generator) -> Floats:
    """Optical density (TILE_PX, TILE_PX, 3) of tissue at a random place, turned by a random angle; hardly any glass."""
    pixels, edge = tissue(), int(TILE_PX * 1.5)
    while True:
        y, x = (int(v) for v in random.integers(0, np.array(pixels.shape[:2]) - edge))
        turn = cv2.getRotationMatrix2D((edge / 2, edge / 2), float(random.uniform(0, 360)), 1.0)
        turned = cv2.warpAffine(pixels[y : y + edge, x : x + edge], turn, (edge, edge), borderMode=cv2.BORDER_REFLECT)
        margin = (edge - TILE_PX) // 2
        inner = turned[margin : margin + TILE_PX, margin : margin + TILE_PX].astype(np.float32)
        density = -np.log((inner + 1) / 256)
        if (density.mean(axis=2) > 0.12).mean() > 0.93:
            return density


def _evened(density: Floats) -> Floats:
    """The same tissue without its own light and dark places, so that they do not tell one tile from the next."""
    around = cv2.GaussianBlur(density.mean(axis=2), (0, 0), 8.0)[..., None]
    return 0.45 * density / (around + 0.05)


def _pattern(name: str, random: np.random.Generator) -> Floats:
    """Where a class has its nuclei or fibres: (TILE_PX, TILE_PX), 0 to 1."""
    drawn = {"scattered": _scattered, "clustered": _clustered, "rings": _rings, "stripes": _stripes, "large": _large, "mesh": _mesh}
    return drawn[name](random)


def _scattered(random: np.random.Generator) -> Floats:
    return _discs(random.uniform(0, TILE_PX, (60, 2)), random.uniform(4, 6, 60))


def _clustered(random: np.random.Generator) -> Floats:
    centres = random.uniform(0, TILE_PX, (6, 2))
    return _discs(centres[random.integers(0, 6, 80)] + random.normal(0, 9, (80, 2)), random.uniform(4, 6, 80))


def _large(random: np.random.Generator) -> Floats:
    return _discs(random.uniform(0, TILE_PX, (14, 2)), random.uniform(9, 13, 14))


def _rings(random: np.random.Generator) -> Floats:
    """Glands: nuclei around empty middles."""
    nuclei = []
    for _ in range(8):
        radius_px = random.uniform(13, 19)
        count = int(1.1 * radius_px)
        angle = 2 * np.pi * np.arange(count) / count + random.uniform(0, 6)
        nuclei.append(random.uniform(0, TILE_PX, 2) + radius_px * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    places = np.concatenate(nuclei)
    return _discs(places, random.uniform(3, 4.5, len(places)))


def _stripes(random: np.random.Generator) -> Floats:
    """Wavy fibres of a random direction."""
    angle, period_px = random.uniform(0, np.pi), random.uniform(14, 20)
    y, x = np.mgrid[:TILE_PX, :TILE_PX]
    along, across = x * np.sin(angle) - y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
    wave = np.sin(2 * np.pi * (across + 4 * np.sin(along / 20 + random.uniform(0, 6))) / period_px)
    return (0.5 + 0.5 * (3 * wave).clip(-1, 1)).astype(np.float32)


def _mesh(random: np.random.Generator) -> Floats:
    """Septa between cells: the edges of a Voronoi diagram."""
    plane = cv2.Subdiv2D((-20, -20, TILE_PX + 40, TILE_PX + 40))
    for x, y in random.uniform(-10, TILE_PX + 10, (32, 2)).tolist():
        plane.insert((x, y))
    cells, _ = plane.getVoronoiFacetList([])
    mask = np.zeros((TILE_PX, TILE_PX), np.float32)
    edges = [np.round(cell * SUB_PX).astype(np.int32) for cell in cells]
    cv2.polylines(mask, edges, isClosed=True, color=1.0, thickness=4, lineType=cv2.LINE_AA, shift=3)
    return cv2.GaussianBlur(mask, (0, 0), 0.8)


def _discs(places_xy: Floats, radii_px: Sequence[float] | Floats) -> Floats:
    mask = np.zeros((TILE_PX, TILE_PX), np.float32)
    for (x, y), radius in zip(places_xy.tolist(), radii_px, strict=True):
        cv2.circle(mask, (int(SUB_PX * x), int(SUB_PX * y)), int(SUB_PX * radius), 1.0, -1, shift=3)
    return cv2.GaussianBlur(mask, (0, 0), 0.8)


def _photographed(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """The same tissue by another laboratory and scanner."""
    hsv = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + random.uniform(-18, 18)) % 360
    hsv[..., 1] = (hsv[..., 1] * random.uniform(0.85, 1.15)).clip(0, 1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    rgb = (rgb.mean() + (rgb - rgb.mean()) * random.uniform(0.75, 1.15)) * random.uniform(0.775, 1.1)
    if (sigma_px := random.uniform(0, 0.65)) > 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), sigma_px)
    return (255 * (rgb + random.normal(0, 0.01, rgb.shape))).clip(0, 255).astype(np.uint8)


def _recompressed(pixels: Pixels, random: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(70, 81)))
    return np.asarray(Image.open(file))
