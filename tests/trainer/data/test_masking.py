"""Block masks have the reference's distribution, and belong to their sample alone."""

import numpy as np
import pytest

from patho_trainer.data import masking
from tests.trainer.golden import numbers


def make(grid=(16, 16), probability=0.5, ratio=(0.1, 0.5), batch_size=8, seed=0, step=0, slots=range(8)):
    return masking.masks(grid, probability, ratio, batch_size, seed, step, slots)


@pytest.fixture(scope="module", params=numbers.DINOV2["mask_statistics"], ids=lambda stats: f"{stats['grid']}x{stats['grid']}")
def many(request):
    """Masks (batches, crops, H, W) of as many batches as the reference's, and its statistics."""
    expected = request.param
    grid = (expected["grid"],) * 2
    return np.stack([make(grid, step=step) for step in range(expected["batches"])]), expected


def test_numbers_of_masked_tokens_are_distributed_as_the_references(many):
    found, expected = many
    counts = np.sort(found.sum((2, 3)), axis=1)  # sorted: the strata
    error = np.array(expected["sorted_count_stds"]) * np.sqrt(2 / len(found)) + 0.02
    assert (np.abs(counts.mean(0) - expected["sorted_count_means"]) < 4.5 * error).all()
    np.testing.assert_allclose(counts.std(0), expected["sorted_count_stds"], rtol=0.2, atol=0.1)
    assert ((counts > 0).sum(1) == expected["masked_crops"]).all()


def test_places_and_shapes_of_blocks_are_distributed_as_the_references(many):
    found, expected = many
    frequency, crops = found.mean((0, 1)), found.shape[0] * found.shape[1]
    error = np.sqrt(2 * frequency * (1 - frequency) / crops)
    assert (np.abs(frequency - expected["frequency"]) < 4.5 * error).mean() > 0.99
    some = found.reshape(-1, *found.shape[2:])
    some = some[some.any((1, 2))].astype(int)
    borders = np.abs(np.diff(some, axis=1)).sum((1, 2)) + np.abs(np.diff(some, axis=2)).sum((1, 2))
    assert borders.mean() == pytest.approx(expected["borders_mean"], rel=0.03)
    assert borders.std() == pytest.approx(expected["borders_std"], rel=0.08)
    assert some.any(2).sum(1).mean() == pytest.approx(expected["height_mean"], rel=0.03)
    assert some.any(1).sum(1).mean() == pytest.approx(expected["width_mean"], rel=0.03)


def test_a_sample_has_its_masks_whichever_process_draws_them():
    whole, part = make(), make(slots=[5, 2])
    assert (part[:2] == whole[[5, 2]]).all()
    assert (part[2:] == whole[[8 + 5, 8 + 2]]).all()


def test_steps_seeds_and_views_have_masks_of_their_own():
    drawn = [make(probability=1.0, step=step, seed=seed) for step, seed in ((0, 0), (1, 0), (0, 1))]
    views = [masks[first : first + 8].tobytes() for masks in drawn for first in (0, 8)]
    assert len(set(views)) == 6


def test_strata_cover_the_whole_range_evenly_over_the_global_batch():
    share = np.sort(masking.targets(10_000, 0.5, (0.1, 0.5), 32, 0, 0, range(32)) / 10_000)
    assert (share[:32] == 0).all()
    strata = np.linspace(0.1, 0.5, 33)
    assert (np.abs(share[32:] - (strata[:-1] + strata[1:]) / 2) <= 0.4 / 64 + 1e-4).all()


@pytest.mark.parametrize(("probability", "masked"), [(0.0, 0), (1.0, 16)])
def test_none_or_all_crops_can_be_masked(probability, masked):
    assert make(probability=probability).any((1, 2)).sum() == masked
