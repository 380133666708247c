"""A small labelled set out of the demo's slide (skin): three tissues, each outlined by hand in boxes; no pixel lies in two splits."""

import numpy as np
from numpy import typing as npt

from patho_trainer.data import slide

MPP = 0.5
# level-0 px: left, top, right, bottom
BOXES = {
    "epidermis": {"train": (1130, 780, 1290, 1060), "val": (1090, 1680, 1200, 1890), "test": (650, 2560, 770, 2900)},
    "dermis": {"train": (870, 1250, 1000, 1490), "val": (810, 1570, 940, 1790), "test": (1490, 2160, 1650, 2410)},
    "keratin": {"train": (1320, 1010, 1490, 1280), "val": (1250, 1310, 1390, 1550), "test": (1280, 1580, 1450, 1800)},
}
Patch = npt.NDArray[np.uint8]


def cut(source: slide.Opened, size_px: int, each: int, seed: int = 0) -> dict[str, dict[str, list[Patch]]]:
    """{split: {class: [uint8 (size_px, size_px, 3)]}}: `each` patches at random places of each box."""
    random = np.random.default_rng(seed)
    found: dict[str, dict[str, list[Patch]]] = {}
    for label, splits in BOXES.items():
        for split, box in splits.items():
            found.setdefault(split, {})[label] = [source.read(_corner(box, size_px, random), size_px, MPP) for _ in range(each)]
    return found


def _corner(box: tuple[int, int, int, int], size_px: int, random: np.random.Generator) -> tuple[int, int]:
    left, top, right, bottom = box
    return int(random.integers(left, right - size_px + 1)), int(random.integers(top, bottom - size_px + 1))
