"""Multi-crop as a whole: shapes, the reference pipeline by hand, and the same crops in any batch, bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional

from patho_trainer import config
from patho_trainer.data import augment, augment_draw, augment_ops
from tests.trainer.methods import specs

SMALL = {"globalSizePx": 64, "localSizePx": 32, "localCount": 3}
ODD = {"globalSizePx": 70, "localSizePx": 28, "localCount": 3}


def make_training(crops=SMALL, method="DINO", **augmentation):
    return config.resolved(specs.make(method=method, crops=crops, augmentation=augmentation))


def make_patches(count=6, size_px=128):
    """Smooth colour with noise on it, uint8."""
    source = np.random.RandomState(0)
    smooth = functional.resize(torch.from_numpy(source.random_sample((count, 3, 6, 6))), [size_px, size_px])
    noisy = smooth + 0.1 * torch.from_numpy(source.standard_normal(smooth.shape))
    return (noisy.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()


def test_two_global_and_n_local_views_of_the_whole_batch():
    views = augment.multi_crop(make_patches(), make_training(), 0, 0, range(6))
    assert [tuple(view.shape) for view in views] == [(6, 3, 64, 64)] * 2 + [(6, 3, 32, 32)] * 3
    assert all(view.dtype == torch.float32 and view.is_contiguous() for view in views)


def test_without_local_crops_there_are_two_views():
    assert len(augment.multi_crop(make_patches(), make_training(SMALL | {"localCount": 0}), 0, 0, range(6))) == 2


@pytest.fixture(params=[1, 2])
def threads(request):
    """Run with this many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("crops", [SMALL, ODD])
def test_a_slot_gets_bitwise_the_same_crops_whichever_slots_are_beside_it(crops, monkeypatch):
    monkeypatch.setattr(augment, "CPU_CHUNK_PX", 5 * 64**2)
    patches, slots = make_patches(6), [3, 4, 5, 11, 12, 40]
    training = make_training(crops, hed=True, rotate90=True)
    whole = augment.multi_crop(patches, training, 7, 9, slots)
    for rows in ([5], [4, 2], [1, 2, 3, 5]):
        part = augment.multi_crop(patches[rows], training, 7, 9, [slots[row] for row in rows])
        assert all(torch.equal(mine, all_[rows]) for mine, all_ in zip(part, whole, strict=True))


def test_steps_and_seeds_give_other_crops():
    first = augment.multi_crop(make_patches(), make_training(), 0, 0, range(6))[0]
    for seed, step in ((1, 0), (0, 1)):
        assert not torch.equal(first, augment.multi_crop(make_patches(), make_training(), seed, step, range(6))[0])


JITTER = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue]


def by_hand(patch, draws, row, size_px, method):
    """One crop through torchvision's and PIL's own operations, one after the other."""
    image, box_px = functional.to_tensor(patch.numpy()), draws.box_px[row].tolist()
    crop = functional.resized_crop(image, *box_px, [size_px] * 2, functional.InterpolationMode.BICUBIC)
    x = (crop.clamp(0, 1) * 255).round() / 255
    x = functional.hflip(x) if draws.flip[row] else x
    for kind in draws.jitter_order[row]:
        x = JITTER[kind](x, draws.jitter_factor[row, kind]) if kind >= 0 else x
    x = functional.rgb_to_grayscale(x, 3) if draws.grey[row] else x
    sigma_px = float(draws.blur_sigma_px[row])
    if sigma_px and method == "DINO":
        x = functional.to_tensor(functional.to_pil_image(x).filter(ImageFilter.GaussianBlur(sigma_px)))
    elif sigma_px:
        x = functional.gaussian_blur(x, [9, 9], [sigma_px] * 2)
    x = functional.solarize(x, 128 / 255) if draws.solarize[row] else x
    return functional.normalize(x, [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("method", ["DINO", "DINOv2"])
@pytest.mark.parametrize("view", [0, 1, 2])
def test_a_crop_is_what_the_references_operations_make_of_the_same_decisions(view, method):
    training, patches, size_px = make_training(method=method), make_patches(), (64, 64, 32)[view]
    crops = augment.multi_crop(patches, training, 5, 6, range(6))[view]
    draws = augment_draw.draw(training, 128, 5, 6, range(6), view)
    for row, patch in enumerate(patches):
        difference = (crops[row] - by_hand(patch, draws, row, size_px, method)).abs()
        # the integer kernel may be one level off before jitter, which can push a pixel over solarisation's threshold
        assert difference.mean() < 2 / 255  # one level, after division by 0.5
        assert difference.quantile(0.99) < 0.05


def test_cutting_equals_pil_within_two_levels():
    patches, draws = make_patches(), augment_draw.draw(make_training(), 128, 5, 6, range(6), 0)
    cut = torch.empty(6, 3, 64, 64)
    augment.cut(list(patches), draws, cut)
    for row, (top, left, height, width) in enumerate(draws.box_px.tolist()):
        box = (left, top, left + width, top + height)
        image = Image.fromarray(patches[row].numpy()).crop(box).resize((64, 64), Image.Resampling.BICUBIC)
        expected = functional.to_tensor(image)
        expected = expected.flip(-1) if draws.flip[row] else expected
        assert (cut[row] - expected).abs().max() * 255 < 2.5


@pytest.mark.parametrize(("source_px", "size_px"), [(100, 64), (100, 33), (40, 64)])
def test_float_images_as_on_a_gpu_are_resized_to_the_levels_of_the_integer_kernel(source_px, size_px):
    images = make_patches(2, source_px).permute(0, 3, 1, 2)
    levels = augment.resized(images.float(), size_px) - augment.resized(images, size_px).float()
    assert levels.abs().mean() < 0.3
    assert (levels.abs() > 1).float().mean() < 0.002  # the integer kernel clips what overshoots between its two passes


def test_normalisation_is_that_of_the_specification():
    x = torch.full((1, 3, 2, 2), 0.5)
    augment.normalize_(x, [0.5, 0.25, 0.0], [1.0, 0.5, 0.25])
    assert x[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]


def test_a_crop_is_turned_after_it_is_flipped():
    patches, training = make_patches(), make_training(rotate90=True)
    draws = augment_draw.draw(training, 128, 5, 6, range(6), 2)
    upright, turned = torch.empty(6, 3, 32, 32), torch.empty(6, 3, 32, 32)
    augment.cut(list(patches), dataclasses.replace(draws, quarter_turns=np.zeros(6, np.int64)), upright)
    augment.cut(list(patches), draws, turned)
    assert len(set(draws.quarter_turns.tolist())) > 1
    for row, turns in enumerate(draws.quarter_turns.tolist()):
        assert np.array_equal(turned[row].numpy(), np.rot90(upright[row].numpy(), turns, axes=(1, 2)))


def test_stains_are_shifted_in_the_chosen_crops_and_before_anything_else_changes_colours():
    draws = augment_draw.draw(make_training(hed=True), 128, 5, 6, range(40), 0)
    before = torch.rand(40, 3, 8, 8)
    after = before.clone()
    augment.shift_stains_(after, draws)
    chosen = draws.hed_shift.any(axis=1)
    assert [not torch.equal(a, b) for a, b in zip(after, before, strict=True)] == chosen.tolist()
    expected = augment_ops.shift_stains(before, torch.from_numpy(draws.hed_shift).float())
    assert torch.equal(after[chosen], expected[chosen])


def test_extras_that_are_off_change_no_crop():
    plain, off = make_training(), make_training(hed=False, rotate90=False, blurProbabilities=[1.0, 0.1, 0.5])
    for mine, theirs in zip(*(augment.multi_crop(make_patches(), t, 0, 0, range(6)) for t in (plain, off)), strict=True):
        assert torch.equal(mine, theirs)
