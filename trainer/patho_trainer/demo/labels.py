"""A small labelled set out of the demo's slide: at which magnification was this patch read? Train above, test below: no pixel in both."""

import numpy as np

from patho_trainer.data import slide

CLASSES = {"20x": 0.5, "10x": 1.0, "5x": 2.0}  # micrometres a pixel
SPLIT_AT = 0.6  # share of the slide's height: train above, test below
SATURATED = 20  # of 255: less is glass
Images = dict[str, dict[str, list[np.ndarray]]]


def cut(source: slide.Opened, size_px: int, each: int, seed: int = 0) -> Images:
    """{split: {class: [uint8 (size_px, size_px, 3)]}}, `each` patches a class and split, mostly tissue."""
    random = np.random.default_rng(seed)
    return {split: {name: _patches(source, split, size_px, mpp, each, random) for name, mpp in CLASSES.items()} for split in ("train", "test")}


def _patches(source: slide.Opened, split: str, size_px: int, mpp: float, each: int, random: np.random.Generator) -> list[np.ndarray]:
    width, height = source.dimensions
    edge = round(size_px * mpp / source.mpp)  # level-0 pixels
    border = round(height * SPLIT_AT)
    low, high = (0, border - edge) if split == "train" else (border, height - edge)
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
