"""DINO's augmentation by PIL and torchvision, one image at a time: the opponent of two measurements."""

from collections.abc import Callable

import torch
from PIL import Image, ImageFilter
from torchvision import transforms

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


VIEWS = [view(224, (0.4, 1), 1.0), view(224, (0.4, 1), 0.1, 0.2), *[view(96, (0.05, 0.4), 0.5)] * 8]


def multi_crop(images: list[Image.Image]) -> list[torch.Tensor]:
    """Two global and eight local views (B, 3, size, size), as a data loader's workers make and collate them."""
    by_image = [[each(image) for each in VIEWS] for image in images]
    return [torch.stack(crops) for crops in zip(*by_image, strict=True)]
