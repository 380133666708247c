"""Whole-slide images for tests, written by tifffile: tissue on white glass, as pyramids of any shape, and what is wrong with slides."""

import dataclasses
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

SLIDES = pathlib.Path(__file__).parents[1] / "slides"
CMU = SLIDES / "CMU-1-Small-Region.svs"  # Aperio, 2220 x 2967 at 0.499 um/px, JPEG stored as RGB with shared tables
DAPI = SLIDES / "test3-DAPI-2-387.ndpi"  # Hamamatsu, fluorescence

Pixels = NDArray[np.uint8]
WHITE = 243


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A synthetic slide. `sizes` of the levels (width, height) in pixels; `vendor` writes an Aperio description."""

    sizes: tuple[tuple[int, int], ...] = ((640, 512), (320, 256), (160, 128))
    mpp: float = 0.25
    tile: int = 128
    compression: str | int = "jpeg"
    stored: str = "ycbcr"  # how JPEG keeps colour: ycbcr or rgb
    vendor: bool = False
    resolution: bool = True
    tissue: float = 1.0  # share of the width that tissue may cover; 0 is an empty glass
    bigtiff: bool = False
    predictor: bool = False
    software: str = ""
    seed: int = 0


def picture(recipe: Recipe) -> Pixels:
    """uint8 RGB (height, width, 3) of level 0: stained tissue with nuclei on white."""
    width, height = recipe.sizes[0]
    random = np.random.default_rng(recipe.seed)
    rough = cv2.resize(random.random((9, 9), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(random.random((height // 6 + 1, width // 6 + 1), dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    is_tissue = (rough > 0.35) & (across < recipe.tissue)
    stain = np.where((fine > 0.6)[..., None], np.array([96, 58, 132]), np.array([222, 150, 190]))
    glass = np.full((height, width, 3), WHITE)
    grain = random.integers(-6, 7, (height, width, 1))
    return np.clip(np.where(is_tissue[..., None], stain, glass) + grain, 0, 255).astype(np.uint8)


def pyramid(recipe: Recipe) -> list[Pixels]:
    """The levels' pixels before compression, fine to coarse."""
    base = picture(recipe)
    return [base, *(cv2.resize(base, size, interpolation=cv2.INTER_AREA) for size in recipe.sizes[1:])]


def write(path: pathlib.Path, recipe: Recipe | None = None) -> pathlib.Path:
    """Write a pyramid as OpenSlide and everybody else expects it: pages, from fine to coarse, the coarse ones marked as reduced."""
    recipe = recipe or Recipe()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=recipe.bigtiff) as writer:
        for number, pixels in enumerate(pyramid(recipe)):
            writer.write(pixels, **options(recipe, number))
    return path


def options(recipe: Recipe, number: int) -> dict[str, object]:
    """What tifffile is told for a level."""
    pixels_a_cm = 10_000 / recipe.mpp / (recipe.sizes[0][0] / recipe.sizes[number][0])
    options: dict[str, object] = {
        "tile": (recipe.tile, recipe.tile),
        "photometric": "rgb",
        "compression": recipe.compression,
        "predictor": recipe.predictor,
        "subfiletype": 1 if number else 0,
        "metadata": None,
        "software": recipe.software or False,
    }
    if recipe.compression == "jpeg":
        options["compressionargs"] = {"level": 80, "outcolorspace": recipe.stored}
    if recipe.resolution:
        options |= {"resolution": (pixels_a_cm, pixels_a_cm), "resolutionunit": "CENTIMETER"}
    if recipe.vendor:
        width, height = recipe.sizes[number]
        options["description"] = f"Aperio Image Library v11\r\n{width}x{height} (128x128) JPEG/RGB Q=80|AppMag = 40|MPP = {recipe.mpp:.4f}"
    return options


def scanned(width: int, height: int, downsamples: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Sizes of levels as scanners write them: rounded down, so that a downsample of 4 reads 4.0001."""
    return tuple((int(width / d), int(height / d)) for d in downsamples)


def decoded_levels(path: pathlib.Path) -> list[Pixels]:
    """Every tiled page, those in sub-directories too, decoded whole by tifffile, uint8 RGB: what a level is, whoever reads it."""
    with tifffile.TiffFile(path) as tiff:
        pages = [sub for page in tiff.pages for sub in (page, *(page.pages or ())) if sub.is_tiled]
        return [_rgb(page) for page in pages]


def _rgb(page: tifffile.TiffPage) -> Pixels:
    """tifffile hands YCbCr JPEG back as RGB already; `asarray` crops the padding of edge tiles."""
    return np.ascontiguousarray(page.asarray())


def truncate(path: pathlib.Path, share: float) -> pathlib.Path:
    """Cut a file's end off: an upload that broke."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def scribble(path: pathlib.Path, seed: int = 0, count: int = 400) -> pathlib.Path:
    """Overwrite bytes in the middle of tiles: a bad disk."""
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    with tifffile.TiffFile(path) as tiff:
        spans = [(o, n) for page in tiff.pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    for offset, size in spans:
        for at in random.integers(offset + size // 4, offset + size, count):
            data[at] = 0xFF
    path.write_bytes(data)
    return path
