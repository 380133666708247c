"""What the report shows beside numbers: where samples lie among each other, and what a decoder makes of a patch."""

# N samples, F width of the features, S edge of a patch

import dataclasses
import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

POINTS = 600  # of a scatter plot: as many as a page draws at once
PICTURES = 6
# of classes, far apart for people who see red and green alike (Okabe and Ito); the background of a mask stays as it is
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")


@dataclasses.dataclass(frozen=True)
class Point:
    """A sample in the plane of the two directions of largest variance."""

    x: float
    y: float
    label: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """PNG files of a patch, the patch with its true classes over it, and with the predicted ones."""

    image: bytes
    truth: bytes
    prediction: bytes


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """Of one task; empty where it has none."""

    points: tuple[Point, ...]
    pictures: tuple[Picture, ...]


def scatter(features_NF: torch.Tensor, labels_N: torch.Tensor) -> tuple[Point, ...]:
    """At most POINTS samples on their first two principal components, scaled to [0, 1]."""
    rows = torch.linspace(0, len(features_NF) - 1, min(POINTS, len(features_NF)), device=features_NF.device).round().long()
    centred_NF = (features_NF[rows] - features_NF[rows].mean(dim=0)).double().cpu()
    axes_KF = torch.linalg.svd(centred_NF, full_matrices=False).Vh[:2]
    axes_KF = axes_KF * axes_KF.gather(1, axes_KF.abs().argmax(dim=1, keepdim=True)).sign()  # a direction has no sign of its own
    at_NK = centred_NF @ axes_KF.T
    at_NK = (at_NK - at_NK.amin(dim=0)) / (at_NK.amax(dim=0) - at_NK.amin(dim=0)).clamp_min(1e-12)
    return tuple(Point(x, y, label) for (x, y), label in zip(at_NK.tolist(), labels_N[rows].tolist(), strict=True))


def pictures(images_N3SS: torch.Tensor, masks_NSS: torch.Tensor, predicted_NSS: torch.Tensor) -> tuple[Picture, ...]:
    """The patches with their classes drawn over them, half transparent."""
    found = []
    for image_3SS, *classes in zip(images_N3SS.cpu(), masks_NSS.cpu(), predicted_NSS.cpu(), strict=True):
        pixels = image_3SS.permute(1, 2, 0).numpy()
        found.append(Picture(_png(pixels), *(_png(_over(pixels, each.numpy())) for each in classes)))
    return tuple(found)


def colour(label: int) -> str:
    """Of a class."""
    return COLOURS[label % len(COLOURS)]


def _over(pixels: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    drawn = pixels.copy()
    for label in np.unique(classes[classes > 0]):
        tint = np.array([int(colour(int(label))[i : i + 2], 16) for i in (1, 3, 5)])
        drawn[classes == label] = (pixels[classes == label] * 0.35 + tint * 0.65).astype(np.uint8)
    return drawn


def _png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
