"""Stochastic depth is keyed by sample: no process, batch or resolution changes it."""

import torch

from patho_trainer.models import drop_path, vit
from tests.trainer.golden import numbers

RATES = [0.0, 0.25, 0.5]


def test_a_sample_keeps_its_scales_in_any_batch():
    whole = drop_path.scales(RATES, seed=1, step=7, slots=range(8), views=3)
    part = drop_path.scales(RATES, seed=1, step=7, slots=[5, 2], views=3)
    assert torch.equal(part, whole[:, :, [5, 2]])


def test_branches_are_dropped_at_their_rate_and_the_mean_stays():
    scales = drop_path.scales(RATES, seed=1, step=0, slots=range(2000), views=2).flatten(1)
    torch.testing.assert_close((scales == 0).float().mean(1), torch.tensor(RATES), atol=0.03, rtol=0)
    torch.testing.assert_close(scales.mean(1), torch.ones(3), atol=0.06, rtol=0)


def test_steps_views_and_seeds_draw_their_own():
    scales = [drop_path.scales([0.5], seed, step, range(64), views=2) for seed, step in ((0, 0), (0, 1), (1, 0))]
    different = [scales[0][0, 0], scales[0][0, 1], scales[1][0, 0], scales[2][0, 0]]
    assert len({tuple(flips.tolist()) for flips in different}) == 4


def test_rates_grow_linearly_over_the_blocks_as_in_timm():
    network = vit.Network(vit.create("vit_tiny_patch16_224", img_size_px=32, drop_path=0.2, depth=3), torch.nn.Identity())
    torch.testing.assert_close(torch.tensor(network.drop_rates), torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_a_dropped_branch_leaves_its_sample_as_it_was_and_a_kept_one_does_not():
    backbone = vit.create("vit_tiny_patch16_224", img_size_px=32, drop_path=0.2, depth=2)
    first_kept = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # two branches of the last block, two samples
    images = numbers.normal(0, 2, 3, 32, 32)
    features = vit.forward_features(vit.Network(backbone, torch.nn.Identity()).backbone, images, first_kept)
    backbone.blocks = backbone.blocks[:1]
    shortened = vit.forward_features(backbone, images)
    torch.testing.assert_close(features[1], shortened[1])
    assert not torch.allclose(features[0], shortened[0])
