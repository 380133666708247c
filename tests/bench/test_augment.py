"""Multi-crop against the same recipe by PIL and torchvision, one image at a time: CPU milliseconds an image, interleaved rounds."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from patho_trainer import config
from patho_trainer.data import augment
from tests.trainer.methods import specs

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS, IMAGES, PATCH_PX = 5, 32, 256
JITTER = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
TENSOR = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def view(size_px: int, scale: tuple[float, float], blurred: float, solarized: float = 0.0) -> Callable[[Image.Image], torch.Tensor]:
    """One view of DINO's recipe (facebookresearch/dino, main_dino.py) out of torchvision's transforms."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size_px, scale, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            JITTER,
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([transforms.Lambda(blur)], p=blurred),
            transforms.RandomSolarize(128, p=solarized),
            TENSOR,
        ]
    )


def milliseconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return 1000 * (time.process_time() - before) / IMAGES


def test_a_batch_costs_less_than_image_by_image():
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each).resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC) for each in noise]
    batch = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    views = [view(224, (0.4, 1), 1.0), view(224, (0.4, 1), 0.1, 0.2), *[view(96, (0.05, 0.4), 0.5)] * 8]
    training, ours, theirs = config.resolved(specs.make(crops={})), [], []
    for number in range(ROUNDS):
        ours.append(milliseconds(lambda step=number: augment.multi_crop(batch, training, 0, step, range(IMAGES))))
        theirs.append(milliseconds(lambda: [each(picture) for picture in pictures for each in views]))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(
        f"\n2 x 224 + 8 x 96 px: {statistics.median(ours):.1f} ms an image, PIL and torchvision {statistics.median(theirs):.1f} ms; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds)"
    )
    assert statistics.median(ratios) > 1.5
