"""The architectures of the paper and of Midnight build with both methods; registers and SwiGLU go through a step."""

import pytest
import torch

from patho_trainer import config, schedules
from patho_trainer.methods import dino, dinov2
from patho_trainer.models import heads, masked, vit
from tests.trainer.golden import numbers
from tests.trainer.methods import specs

ARCHITECTURES = [
    # timm's name, local crop px, registers, millions of parameters at 224 px
    ("vit_small_patch16_224", 96, 0, 21.7),
    ("vit_small_patch8_224", 96, 0, 21.7),
    ("vit_base_patch16_224", 96, 0, 85.8),
    ("vit_base_patch8_224", 96, 0, 85.8),
    ("vit_large_patch14_reg4_dinov2", 98, 4, 303.2),
    ("vit_giant_patch14_reg4_dinov2", 98, 4, 1134.8),
]


@pytest.mark.slow
@pytest.mark.parametrize("method", [dino, dinov2])
@pytest.mark.parametrize(("architecture", "local_px", "registers", "millions"), ARCHITECTURES)
def test_an_architecture_builds_with_both_methods(method, architecture, local_px, registers, millions):
    crops = {"globalSizePx": 224, "localSizePx": local_px, "localCount": 8}
    name = {dino: "DINO", dinov2: "DINOv2"}[method]
    with torch.device("meta"):  # shapes without memory
        built = method.build(specs.make(architecture, method=name, batchSize=64, crops=crops), "meta")
    backbone = built.student.backbone
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)
    assert backbone.num_reg_tokens == registers
    assert backbone.patch_embed.grid_size[0] * backbone.patch_embed.patch_size[0] == 224


@pytest.mark.parametrize("architecture", ["vit_large_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2"])
def test_masks_and_losses_find_their_tokens_behind_the_registers(architecture):
    h = config.resolved(specs.make(architecture, method="DINOv2", lossGroupSize=4, dropPath=0.3, maskProbability=1.0))
    networks = []
    for _ in range(2):
        backbone = vit.create(architecture, img_size_px=28, depth=2, embed_dim=48, num_heads=3)
        head = heads.ProjectionHead(48, hidden_width=32, bottleneck_width=16, prototypes=32, norm_last_layer=False)
        networks.append(masked.MaskedNetwork(masked.adopted(backbone, architecture), head, None))
    method = dinov2.Method(*networks, *(dinov2.Centre.zero(32, "cpu") for _ in range(2)), h)
    crops = [numbers.normal(view, 4, 3, size, size) for view, size in enumerate((28, 28, 14, 14))]
    dinov2.step(method, crops, schedules.at(h, 5), step=0, slots=range(4))["loss"].backward()
    gradients = {name: p.grad for name, p in method.student.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert gradients["mask_token"].abs().max() > 0
    assert gradients["backbone.reg_token"].abs().max() > 0


def test_chosen_tokens_are_patches_and_not_registers():
    backbone = vit.create("vit_large_patch14_reg4_dinov2", img_size_px=28, depth=1, embed_dim=48, num_heads=3)
    network = masked.MaskedNetwork(backbone, torch.nn.Identity(), torch.nn.Identity()).eval()
    crops = [numbers.normal(view, 2, 3, 28, 28) for view in range(2)]
    out = network(crops, torch.tensor([0, 3, 15]))
    tokens = [backbone.forward_features(crop) for crop in crops]  # 1 class token, 4 registers, 4 patches
    expected = torch.stack([tokens[0][0, 5], tokens[0][0, 8], tokens[1][1, 8]])
    torch.testing.assert_close(out.token_logits_MK, expected)
    torch.testing.assert_close(out.features_2BD, torch.stack([t[:, 0] for t in tokens]))
