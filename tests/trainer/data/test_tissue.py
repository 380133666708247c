"""Tissue: what is glass, what is stained, and how many patches fit."""

import cv2
import numpy as np
import pytest

from patho_trainer.data import slide, tissue
from tests.trainer import slides

GLASS, STAIN = (243, 242, 244), (190, 120, 170)


def glass_with_a_square(stain=STAIN):
    picture = np.full((60, 80, 3), GLASS, dtype=np.uint8)
    picture[20:50, 30:70] = stain
    return picture


@pytest.mark.parametrize("method", ["Otsu", "Saturation"])
def test_the_stained_square_is_tissue_and_the_glass_is_not(method):
    mask = tissue.mask(glass_with_a_square(), method)
    assert mask[24:46, 34:66].all()
    assert not mask[:16].any()
    assert not mask[:, :26].any()


def test_evas_rule_is_saturation_over_20_and_nothing_else():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(tissue.mask(picture, "Saturation"), cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1] > 20)


def test_without_a_method_everything_is_foreground():
    assert tissue.mask(glass_with_a_square(), "None").all()


def test_an_empty_glass_has_no_tissue():
    noise = np.random.default_rng(0).integers(-3, 4, (60, 80, 3))
    assert tissue.mask((np.full((60, 80, 3), GLASS) + noise).astype(np.uint8), "Otsu").mean() < 0.01


def test_a_real_slide_is_about_a_third_tissue():
    opened = slide.open(str(slides.CMU))
    mask = tissue.mask(opened.thumbnail(*tissue.mask_shape(*opened.dimensions, opened.mpp)), "Otsu")
    assert mask.shape == (185, 138)
    assert 0.25 < mask.mean() < 0.45


def test_brightfield_is_bright_and_fluorescence_is_dark():
    assert tissue.is_brightfield(slide.open(str(slides.CMU)).thumbnail(185, 138))
    assert not tissue.is_brightfield(slide.open(str(slides.DAPI)).thumbnail(139, 113))


def by_hand(mask, width, height, share):
    """Positions counted one by one, for whole pixels."""
    rows, columns = mask.shape
    windows = [mask[y : y + height, x : x + width].mean() for y in range(rows - height + 1) for x in range(columns - width + 1)]
    return sum(w >= share - 1e-9 for w in windows)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (5, 9), (30, 20)])
def test_positions_are_those_with_enough_tissue(width, height):
    mask = np.random.default_rng(3).random((20, 30)) > 0.6
    assert tissue.positions(mask, width, height, 0.4) == by_hand(mask, width, height, 0.4)


def test_fractions_of_a_mask_pixel_count_as_such():
    mask = np.array([[True, False, False, False]])
    assert tissue.positions(mask, 2.5, 1, 0.4) == 1
    assert tissue.positions(mask, 2.6, 1, 0.4) == 0
