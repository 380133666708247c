"""Image files to tensors: decode, resize the shorter edge, crop the centre. The same pixels as kaiko-eva's ResizeAndCrop."""

# C channels (RGB), S edge of the crop

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from patho_trainer import errors


def decode(data: bytes, url: str) -> torch.Tensor:
    """uint8 RGB (3, H, W) of a PNG, JPEG or TIFF file; transparency is dropped. Raises DataNotFound, naming `url`, for anything else."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    # Pillow reports broken files as any of these, SyntaxError for PNG
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as broken:
        raise errors.DataNotFound(f"{url} is not a readable image ({broken}): replace it, or take it out of the data set") from broken


def resize_and_crop(image_CHW: torch.Tensor, size_px: int) -> torch.Tensor:
    """uint8 (3, S, S) of a uint8 (3, H, W): bilinear with antialiasing, aspect ratio kept, then the centre."""
    height, width = image_CHW.shape[1:]
    if min(height, width) != size_px:
        shape = [size_px * edge // min(height, width) for edge in (height, width)]
        image_CHW = functional.interpolate(image_CHW[None], size=shape, mode="bilinear", antialias=True)[0]
    top, left = (round((edge - size_px) / 2) for edge in image_CHW.shape[1:])
    return image_CHW[:, top : top + size_px, left : left + size_px]


def resize_mask(mask_HW: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Class indices (S, S) of a square (H, W): nearest neighbour, as torchvision resizes masks."""
    if mask_HW.shape == (size_px, size_px):
        return mask_HW
    resized: NDArray[np.uint8] = functional.interpolate(torch.from_numpy(mask_HW)[None, None], size=(size_px, size_px))[0, 0].numpy()
    return resized
