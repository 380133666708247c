"""timm's ViTs as backbones: any of them, any crop size, and sentences for what does not work."""

import pytest
import torch

from patho_api import training as api
from patho_trainer import errors
from patho_trainer.models import vit
from tests.trainer.golden import numbers


def make_crops(global_size_px=32, local_size_px=16):
    return api.Crops(global_size_px=global_size_px, local_size_px=local_size_px)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224"])
def test_features_equal_timms_own_forward(architecture):
    backbone = vit.create(architecture, img_size_px=28 if "14" in architecture else 32, depth=2).eval()
    patch_px = backbone.patch_embed.patch_size[0]
    for size_px in (patch_px, 2 * patch_px, 3 * patch_px):
        images = numbers.normal(0, 2, 3, size_px, size_px)
        torch.testing.assert_close(vit.forward_features(backbone, images), backbone(images), atol=1e-5, rtol=1e-5)


def backward_of(tensor):
    """Names of the autograd nodes that a tensor came from."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [next_node for next_node, _ in node.next_functions]
    return {type(node).__name__ for node in seen}


def test_no_gradient_flows_through_an_interpolation_which_has_no_fixed_order_on_a_gpu():
    backbone, images = vit.create("vit_tiny_patch16_224", img_size_px=48, depth=1), torch.zeros(1, 3, 32, 32)
    assert any("Upsample" in name for name in backward_of(backbone(images)))
    assert not any("Upsample" in name for name in backward_of(vit.forward_features(backbone, images)))


def test_views_of_one_size_go_through_in_one_pass():
    backbone = vit.create("vit_tiny_patch16_224", img_size_px=32, depth=1)
    passes = []
    backbone.patch_embed.register_forward_hook(lambda module, args, out: passes.append(tuple(args[0].shape)))
    logits = vit.Network(backbone, torch.nn.Identity())([torch.zeros(2, 3, size, size) for size in (32, 32, 16, 16, 16)])
    assert passes == [(4, 3, 32, 32), (6, 3, 16, 16)]
    assert logits.shape == (5 * 2, 192)


def test_a_view_gives_the_same_features_alone_and_among_others():
    network = vit.Network(vit.create("vit_tiny_patch16_224", img_size_px=32, depth=2), torch.nn.Identity())
    crops = [numbers.normal(view, 2, 3, size, size) for view, size in enumerate((32, 32, 16))]
    for view, crop in enumerate(crops):
        torch.testing.assert_close(network(crops)[2 * view : 2 * view + 2], network([crop]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("vit_smal_patch16_224", "timm has no model 'vit_smal_patch16_224'; did you mean vit_small_patch16_224 or"),
        ("zzz", r"timm has no model 'zzz'; `timm.list_models\('vit_\*'\)` lists what there is"),
        ("resnet50", "resnet50 is not a plain vision transformer of timm: use one such as vit_small_patch16_224"),
    ],
)
def test_a_wrong_name_is_answered_with_names_that_work(architecture, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        vit.create(architecture)


@pytest.mark.parametrize(
    ("architecture", "sizes_px", "sentence"),
    [
        ("vit_tiny_patch16_224", (224, 90), "localSizePx: 90 is not a multiple of vit_tiny_patch16_224's patch size 16: use 96"),
        ("vit_small_patch14_dinov2", (220, 98), "globalSizePx: 220 is not a multiple of vit_small_patch14_dinov2's patch size 14: use 224"),
    ],
)
def test_a_crop_size_that_patches_do_not_tile_is_refused(architecture, sizes_px, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        vit.check_crops(architecture, make_crops(*sizes_px))
