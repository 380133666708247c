"""Each operation equals torchvision's on float tensors, and PIL's within its rounding."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional

from patho_trainer.data import augment_ops
from tests.trainer.golden import numbers

SIZE_PX = 48


def make_crops(count=6):
    """Noise, with black, white, grey and pure colours among it."""
    x = torch.from_numpy(np.random.RandomState(0).random_sample((count, 3, SIZE_PX, SIZE_PX)).astype(np.float32))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
    x[:, :, 0, : len(corners)] = corners.T
    return x


def each(operation, x, *arguments):
    """Apply torchvision's operation for one image to every crop, with its own arguments."""
    return torch.stack([operation(crop, *values) for crop, *values in zip(x, *arguments, strict=True)])


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (augment_ops.brightness_, functional.adjust_brightness, [0.6, 0.8, 1.0, 1.1, 1.3, 1.4]),
        (augment_ops.contrast_, functional.adjust_contrast, [0.6, 0.8, 1.0, 1.1, 1.3, 1.4]),
        (augment_ops.saturation_, functional.adjust_saturation, [0.8, 0.9, 1.0, 1.05, 1.15, 1.2]),
        (augment_ops.hue_, functional.adjust_hue, [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5]),
    ],
)
def test_a_jitter_operation_equals_torchvision(ours, theirs, factors):
    actual = ours(make_crops(), torch.tensor(factors))
    torch.testing.assert_close(actual, each(theirs, make_crops(), factors), atol=2e-6, rtol=0)


def test_greyscale_equals_torchvision():
    expected = each(lambda crop: functional.rgb_to_grayscale(crop, 3), make_crops())
    torch.testing.assert_close(augment_ops.grey_(make_crops()), expected, atol=1e-6, rtol=0)


def test_solarize_equals_torchvision_and_inverts_the_threshold_itself():
    x = make_crops()
    x[0, :, 1, 0] = 128 / 255
    expected = functional.solarize(x, 128 / 255)
    torch.testing.assert_close(augment_ops.solarize_(x.clone()), expected, atol=1e-7, rtol=0)
    assert expected[0, 0, 1, 0] == pytest.approx(127 / 255)


def test_blur_with_a_cut_gaussian_equals_torchvisions_of_nine_pixels_to_the_border():
    sigmas_px = [0.1, 0.3, 0.9, 1.0, 1.7, 2.0]
    kernels = torch.from_numpy(augment_ops.gaussian_half_kernels(np.array(sigmas_px))).float()
    expected = each(lambda crop, sigma_px: functional.gaussian_blur(crop, [9, 9], [sigma_px] * 2), make_crops(), sigmas_px)
    torch.testing.assert_close(augment_ops.blur(make_crops(), kernels, "reflect"), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma_px", [0.1, 0.3, 0.8, 1.4, 1.42, 2.0])
def test_blur_equals_pil_up_to_its_rounding_in_each_of_six_passes(sigma_px):
    image = Image.effect_noise((SIZE_PX, SIZE_PX), 60).convert("RGB")
    expected = functional.to_tensor(image.filter(ImageFilter.GaussianBlur(sigma_px)))
    kernels = torch.from_numpy(augment_ops.box_half_kernels(np.array([sigma_px])))
    actual = augment_ops.blur(functional.to_tensor(image)[None], kernels, "replicate")[0]
    levels = (actual - expected).abs() * 255
    assert levels[:, 6:-6, 6:-6].max() < 6  # PIL repeats the border anew in each pass
    assert levels.mean() < 1.5


def test_a_kernel_has_sum_one_and_the_variance_that_was_asked_for():
    sigmas_px = np.array([0.1, 0.7, 1.0, 1.9])
    half = augment_ops.box_half_kernels(sigmas_px)
    assert half[:, 0] + 2 * half[:, 1:].sum(axis=1) == pytest.approx(np.ones(4))
    assert 2 * (half * np.arange(half.shape[1]) ** 2).sum(axis=1) == pytest.approx(sigmas_px**2)


def test_shifted_stains_equal_skimages():
    pixels = np.random.RandomState(90).randint(0, 256, (2, 3, 6, 6)).astype(np.uint8)
    pixels[0, :, 0, :3], pixels[0, :, 0, 3:] = 0, 255
    shift = np.random.RandomState(91).uniform(-0.05, 0.05, (2, 3))
    shifted = augment_ops.shift_stains(torch.from_numpy(pixels).float() / 255, torch.from_numpy(shift).float())
    numbers.close(shifted.flatten(), numbers.HED["shifted"], tolerance=1e-5)
