"""The random decisions have the reference's distributions and belong to their sample alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision import transforms

from patho_trainer import config
from patho_trainer.data import augment_draw
from tests.trainer.methods import specs

COUNT = 4000


def draw(view=2, slots=range(COUNT), seed=0, step=0, method="DINO", **augmentation):
    training = config.resolved(specs.make(method=method, crops={}, augmentation=augmentation))
    return augment_draw.draw(training, 256, seed, step, slots, view)


def share(chosen):
    return float(np.mean(chosen))


@pytest.mark.parametrize(
    ("quantity", "view", "probability"),
    [
        ("flip", 0, 0.5),
        ("grey", 1, 0.2),
        ("jitter_order", 2, 0.8),
        ("blur_sigma_px", 0, 1.0),
        ("blur_sigma_px", 1, 0.1),
        ("blur_sigma_px", 2, 0.5),
        ("blur_sigma_px", 9, 0.5),
        ("solarize", 0, 0.0),
        ("solarize", 1, 0.2),
        ("solarize", 9, 0.0),
    ],
)
def test_an_operation_happens_as_often_as_in_the_reference(quantity, view, probability):
    values = getattr(draw(view), quantity)
    happens = values[:, 0] >= 0 if quantity == "jitter_order" else values > 0
    assert share(happens) == pytest.approx(probability, abs=0.025 if 0 < probability < 1 else 0)


@pytest.mark.parametrize(("kind", "low", "high"), [(0, 0.6, 1.4), (1, 0.6, 1.4), (2, 0.8, 1.2), (3, -0.1, 0.1)])
def test_jitter_factors_are_uniform_over_the_references_range(kind, low, high):
    factors = draw().jitter_factor[:, kind]
    expected = np.linspace(low, high, 11)
    assert np.abs(np.quantile(factors, np.linspace(0, 1, 11)) - expected).max() < 0.03 * (high - low)


def test_every_order_of_jitter_is_equally_likely():
    orders, counts = np.unique(draw().jitter_order, axis=0, return_counts=True)
    assert len(orders) == 25  # 24, and none
    assert counts[1:].min() > 0.65 * 0.8 * COUNT / 24


def test_blur_radii_are_uniform_between_a_tenth_and_two_pixels():
    sigma_px = draw(view=0).blur_sigma_px
    assert np.abs(np.quantile(sigma_px, [0, 0.5, 1]) - [0.1, 1.05, 2.0]).max() < 0.05


@pytest.mark.parametrize(
    ("method", "view", "scale"), [("DINO", 0, (0.4, 1)), ("DINO", 5, (0.05, 0.4)), ("DINOv2", 1, (0.32, 1)), ("DINOv2", 2, (0.05, 0.32))]
)
def test_boxes_are_distributed_like_those_of_random_resized_crop(method, view, scale):
    image = torch.empty(3, 256, 256)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([transforms.RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(COUNT)])
    ours = draw(view, method=method).box_px
    for column in range(4):
        levels = [np.quantile(boxes[:, column], np.linspace(0.05, 0.95, 10)) for boxes in (ours, theirs)]
        assert np.abs(levels[0] - levels[1]).max() < 10


def test_boxes_lie_inside_the_patch_and_the_whole_patch_is_taken_where_none_fits():
    top, left, height, width = draw(view=0).box_px.T
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) == 256
    never = augment_draw.boxes(256, (1.0, 1.0), np.ones((1, 10)), np.ones((1, 10)), np.full((1, 2), 0.5))
    assert never.tolist() == [[0, 0, 256, 256]]


def test_a_sample_draws_the_same_in_any_batch():
    whole, part = draw(slots=range(8)), draw(slots=[6, 1])
    for field in dataclasses.fields(augment_draw.Draws):
        assert np.array_equal(getattr(part, field.name), getattr(whole, field.name)[[6, 1]])


def test_views_steps_and_seeds_draw_their_own():
    flips = [draw(**key).flip.tolist() for key in ({}, {"view": 3}, {"step": 1}, {"seed": 1})]
    assert len({tuple(flip) for flip in flips}) == 4


def test_quarter_turns_are_equally_likely_and_off_by_default():
    assert not draw().quarter_turns.any()
    turns, counts = np.unique(draw(rotate90=True).quarter_turns, return_counts=True)
    assert turns.tolist() == [0, 1, 2, 3]
    assert np.abs(counts / COUNT - 0.25).max() < 0.025


def test_stains_of_half_of_the_crops_are_shifted_uniformly_and_each_on_its_own():
    assert not draw().hed_shift.any()
    shift = draw(hed=True).hed_shift
    chosen = shift[shift.any(axis=1)]
    assert len(chosen) / COUNT == pytest.approx(0.5, abs=0.025)
    for stain in chosen.T:
        assert np.abs(np.quantile(stain, np.linspace(0, 1, 11)) - np.linspace(-0.05, 0.05, 11)).max() < 0.004
    assert np.abs(np.corrcoef(chosen.T) - np.eye(3)).max() < 0.08


@pytest.mark.parametrize(("view", "probability"), [(0, 0.0), (1, 0.9), (4, 0.5)])
def test_blurring_as_dinov2s_code_really_does_is_a_switch(view, probability):
    blurred = draw(view, method="DINOv2", blurProbabilities=[0.0, 0.9, 0.5]).blur_sigma_px > 0
    assert share(blurred) == pytest.approx(probability, abs=0.025 if probability else 0)
