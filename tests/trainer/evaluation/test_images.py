import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from patho_trainer import errors
from patho_trainer.evaluation import images
from tests.trainer.evaluation import miniatures


@pytest.mark.parametrize("shape", [(64, 64), (100, 80), (81, 144), (32, 32), (20, 50)])
def test_pixels_equal_those_of_evas_resize_and_crop(shape: tuple[int, int]):
    image_CHW = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = v2.Compose([v2.Resize(32), v2.CenterCrop(32)])(image_CHW)
    assert torch.equal(images.resize_and_crop(image_CHW, 32), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_lossless_files_keep_their_pixels(form: str):
    array = miniatures.image("HP", 0)
    assert np.array_equal(images.decode(miniatures.png(array, form), "a").permute(1, 2, 0), array)


def test_transparency_and_grey_become_rgb():
    grey = miniatures.image("HP", 0)[..., 0]
    transparent = np.dstack([miniatures.image("HP", 0), grey])
    assert images.decode(miniatures.png(grey), "a").shape == (3, 48, 48)
    assert np.array_equal(images.decode(miniatures.png(transparent), "a").permute(1, 2, 0), transparent[..., :3])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's own, before it fails
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_broken_image_is_named(form: str, keep: int):
    data = miniatures.png(miniatures.image("HP", 0), form)[:keep]
    with pytest.raises(errors.DataNotFound, match=r"^s3://b/a\.png is not a readable image \(.*\): replace it, or take it out"):
        images.decode(data, "s3://b/a.png")
