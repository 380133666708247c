"""Stochastic depth is keyed by sample: no process, batch or resolution changes it."""

import numpy as np
import pytest
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


MEMBERS = np.arange(8).reshape(4, 2).T  # two groups of four of eight samples


def make_subsets(rate=0.3, slots=range(8), members=MEMBERS, views=range(2)):
    return drop_path.subsets(rate, 6, seed=1, step=7, slots=slots, members_GN=members, views=views)


def test_every_branch_of_every_group_is_computed_for_the_same_share():
    rows_LS = make_subsets()
    assert rows_LS.shape == (6, 2 * 5)  # of 2 views of 4 samples, 0.7 * 8 rounded down
    for rows in rows_LS:
        groups = [int(row) % 8 % 2 for row in rows]
        assert (groups.count(0), groups.count(1)) == (5, 5)
        assert len(set(rows.tolist())) == 10


def test_a_group_keeps_its_subset_whatever_else_is_in_the_batch():
    whole, alone = make_subsets(), make_subsets(slots=[1, 3, 5, 7], members=np.arange(4)[None])
    mine = [sorted((row // 8, row % 8) for row in rows.tolist() if row % 2) for rows in whole]
    assert mine == [sorted((row // 4, (1, 3, 5, 7)[row % 4]) for row in rows.tolist()) for rows in alone]


def test_one_crop_at_least_is_computed():
    assert make_subsets(rate=0.99).shape == (6, 2)


def test_a_subset_block_is_timms_block_for_the_kept_rows_with_the_mean_kept():
    backbone = vit.create("vit_small_patch14_reg4_dinov2", img_size_px=28, depth=1)
    drop_path.adopt_subsets(backbone, "tiny")
    block, x = backbone.blocks[0], numbers.normal(0, 4, 9, 384)
    torch.nn.init.constant_(block.ls1.gamma, 0.5)
    out = block(x, torch.tensor([[0, 2], [0, 1]]))
    attended = x + 2 * torch.tensor([1.0, 0, 1, 0]).view(4, 1, 1) * block.ls1(block.attn(block.norm1(x)))
    expected = attended + 2 * torch.tensor([1.0, 1, 0, 0]).view(4, 1, 1) * block.ls2(block.mlp(block.norm2(attended)))
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("rate", ["0.3", "0.6"])
def test_a_block_on_a_subset_of_the_batch_equals_dinov2s(rate):
    golden = numbers.DINOV2["drop_path_block"][rate]
    block = drop_path.SubsetBlock(12, 3, qkv_bias=True, init_values=1.0)
    numbers.fill(block)
    x = numbers.normal(90, 8, 5, 12).requires_grad_()
    out = block(x, torch.tensor(golden["kept"]))
    (out * numbers.normal(91, 8, 5, 12)).sum().backward()
    numbers.close(out.flatten(), golden["output"])
    numbers.close(x.grad.flatten(), golden["input_gradient"])
    norms = {name: float(p.grad.norm()) for name, p in block.named_parameters()}
    assert norms == pytest.approx(golden["gradient_norms"], rel=1e-5)
