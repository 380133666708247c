"""Multi-crop against the same recipe by PIL and torchvision, one image at a time: CPU milliseconds an image, interleaved rounds."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from patho_trainer import config
from patho_trainer.data import augment
from tests.bench import pil
from tests.trainer.methods import specs

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS, IMAGES, PATCH_PX = 5, 32, 256


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
    training, ours, theirs = config.resolved(specs.make(crops={})), [], []
    for number in range(ROUNDS):
        ours.append(milliseconds(lambda step=number: augment.multi_crop(batch, training, 0, step, range(IMAGES))))
        theirs.append(milliseconds(lambda: [each(picture) for picture in pictures for each in pil.VIEWS]))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(
        f"\n2 x 224 + 8 x 96 px: {statistics.median(ours):.1f} ms an image, PIL and torchvision {statistics.median(theirs):.1f} ms; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds)"
    )
    assert statistics.median(ratios) > 1.5
