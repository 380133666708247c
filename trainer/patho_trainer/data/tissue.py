"""Which parts of a slide are tissue, and how many patches fit on it. Pure: pictures in, masks and numbers out."""

import cv2
import numpy as np
from numpy.typing import NDArray

from patho_trainer.data import record

MASK_MPP = record.MASK_MPP
EVA_SATURATION = 20  # of 255; kaiko-eva 0.4.5, vision/data/wsi/patching/mask.py, without its optional blur
OTSU_FLOOR = 10  # a slide without tissue has no second mode: below, Otsu would split the noise of white
MEDIAN_PX = 7  # CLAM's blur of the saturation (Lu et al. 2021, doi:10.1038/s41551-020-00682-w)
DARK = 50  # of 255: brightfield slides are lit; the median of the fluorescence slides seen is 5 to 20

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def mask_shape(width: int, height: int, mpp: float) -> tuple[int, int]:
    """(rows, columns) of the mask of a slide of level-0 size in pixels at `mpp` um/px; at least one pixel each way."""
    return max(1, round(height * mpp / MASK_MPP)), max(1, round(width * mpp / MASK_MPP))


def mask(picture: Picture, method: str) -> Mask:
    """Tissue of a whole slide at 8 um/px: uint8 RGB (rows, columns, 3) to bool (rows, columns)."""
    if method == "None":
        return np.ones(picture.shape[:2], dtype=bool)
    saturation = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1]
    if method == "Saturation":
        return np.asarray(saturation > EVA_SATURATION)
    assert method == "Otsu", method
    smooth = cv2.medianBlur(np.ascontiguousarray(saturation), MEDIAN_PX)
    threshold, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(smooth > max(threshold, OTSU_FLOOR))


def is_brightfield(picture: Picture) -> bool:
    """Whether light came through the slide; fluorescence is a dark picture. uint8 RGB (rows, columns, 3)."""
    return bool(np.median(picture.mean(axis=-1)) >= DARK)


def positions(tissue: Mask, width: float, height: float, min_coverage: float) -> int:
    """How many corners on the mask's grid give a patch of `width` x `height` mask pixels at least `min_coverage` of tissue.

    Sizes may be fractions of a pixel. A patch has to lie on the slide; where only the corner (0, 0) fits, it is the one tried.
    """
    sums = cv2.integral(tissue.astype(np.uint8)).astype(np.float64)
    area = _windows(_windows(sums, height).T, width)
    return int(np.count_nonzero(area >= min_coverage * width * height - 1e-6))


def _windows(sums: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """Differences of cumulated rows over windows of `size` rows; between two rows, cumulated sums are linear."""
    last = len(sums) - 1
    starts = np.arange(max(0, int(np.floor(last - size + 1e-9))) + 1)
    ends = np.minimum(starts + size, last)
    low = np.minimum(ends.astype(np.int64), last - 1)
    part = (ends - low)[:, None]
    return np.asarray(sums[low] * (1 - part) + sums[low + 1] * part - sums[starts], dtype=np.float64)
