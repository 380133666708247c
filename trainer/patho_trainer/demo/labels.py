"""A small labelled set out of the demo's slide: at which magnification was this patch read? Each split has a band of its own."""

import numpy as np

from patho_trainer.data import slide

CLASSES = {"20x": 0.5, "10x": 1.0, "5x": 2.0}  # micrometres a pixel
BANDS = {"train": (0.0, 0.5), "val": (0.5, 0.7), "test": (0.7, 1.0)}  # shares of the slide's height: no pixel in two splits
SATURATED = 20  # of 255: less is glass
Images = dict[str, dict[str, list[np.ndarray]]]


def cut(source: slide.Opened, size_px: int, each: int, seed: int = 0) -> Images:
    """{split: {class: [uint8 (size_px, size_px, 3)]}}, `each` patches a class and split, mostly tissue."""
    random = np.random.default_rng(seed)
    return {
        split: {name: _patches(source, band, size_px, mpp, each, random) for name, mpp in CLASSES.items()} for split, band in BANDS.items()
    }


def _patches(
    source: slide.Opened, band: tuple[float, float], size_px: int, mpp: float, each: int, random: np.random.Generator
) -> list[np.ndarray]:
    width, height = source.dimensions
    edge = round(size_px * mpp / source.mpp)  # level-0 pixels
    low, high = round(height * band[0]), round(height * band[1]) - edge
    found: list[np.ndarray] = []
    while len(found) < each:
        corner = (int(random.integers(0, width - edge)), int(random.integers(low, high)))
        patch = source.read(corner, size_px, mpp)
        if _tissue_share(patch) > 0.6:
            found.append(patch)
    return found


def _tissue_share(patch: np.ndarray) -> float:
    """Share of pixels whose channels differ by more than SATURATED."""
    return float((np.ptp(patch.astype(np.int16), axis=2) > SATURATED).mean())
