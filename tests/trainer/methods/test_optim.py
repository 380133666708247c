"""Parameter groups, clipping and freezing, against the reference."""

import pytest
import torch
from torch import nn

from patho_trainer import config, optim, schedules
from patho_trainer.methods import dino, dinov2
from patho_trainer.models import vit
from tests.trainer.golden import numbers
from tests.trainer.methods import specs, test_dinov2


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_parameter_groups_equal_the_reference_by_name(norm_last_layer):
    spec = specs.make(normLastLayer=norm_last_layer)
    groups = optim.parameter_groups(dino.build(spec, "cpu").student, config.resolved(spec))
    expected = numbers.DINO[f"groups_norm_last_layer_{str(norm_last_layer).lower()}"]
    assert [sorted(group["names"]) for group in groups] == expected
    assert [group["decay"] for group in groups] == [1.0, 0.0]


def test_each_gradient_is_clipped_on_its_own_as_in_the_reference():
    layer = nn.Linear(6, 5)
    layer.weight.grad, layer.bias.grad = numbers.normal(40, 5, 6) * 3, numbers.normal(41, 5) * 0.1
    total = optim.clip_per_parameter(layer.parameters(), 3.0)
    expected = numbers.DINO["clip"]
    numbers.close(layer.weight.grad, expected["weight_gradient"])
    numbers.close(layer.bias.grad, expected["bias_gradient"])
    numbers.close(total, sum(n**2 for n in expected["norms"]) ** 0.5)


def test_zero_turns_clipping_off():
    layer = nn.Linear(6, 5)
    layer.weight.grad = numbers.normal(40, 5, 6) * 100
    optim.clip_per_parameter(layer.parameters(), 0.0)
    torch.testing.assert_close(layer.weight.grad, numbers.normal(40, 5, 6) * 100)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("backbone.pos_embed", 0.5**3),
        ("backbone.patch_embed.proj.weight", 0.5**3 * 0.2),
        ("backbone.blocks.0.attn.qkv.weight", 0.5**2),
        ("backbone.blocks.1.mlp.fc1.bias", 0.5),
        ("backbone.norm.weight", 1.0),
        ("head.last_layer.weight_v", 1.0),
    ],
)
def test_learning_rate_decays_from_the_head_down_to_the_embeddings(name, factor):
    assert optim.learning_rate_factor(name, 2, 0.5, 0.2) == pytest.approx(factor)


def test_a_step_writes_rate_and_decay_into_every_group():
    spec = specs.make(layerDecay=0.5)
    optimizer = optim.adamw(dino.build(spec, "cpu").student, config.resolved(spec))
    optim.apply(schedules.Values(0.1, 0.04, 0.996, 0.04, False), optimizer)
    head = next(group for group in optimizer.param_groups if "head.last_layer.weight_v" in group["names"])
    norm = next(group for group in optimizer.param_groups if "backbone.blocks.11.norm1.weight" in group["names"])
    assert (head["lr"], head["weight_decay"]) == (0.1, 0.04)
    assert (norm["lr"], norm["weight_decay"]) == (0.05, 0.0)


def make_dinov2(**training):
    spec = specs.make(method="DINOv2", lossGroupSize=4, **training)
    return dinov2.build(spec, "cpu").student, config.resolved(spec)


def test_parameter_groups_of_dinov2_equal_the_reference_by_name():
    method = test_dinov2.reference_method(**test_dinov2.SEPARATE)
    groups = optim.parameter_groups(method.student, method.hyperparameters)
    ours = {name: [g["learning_rate_factor"], g["decay"], g["frozen_by_rate"]] for g in groups for name in g["names"]}
    expected = numbers.DINOV2["groups"]
    assert set(ours) == set(expected)
    for name, facts in expected.items():
        assert ours[name] == pytest.approx(facts), name


def test_registers_are_at_the_bottom_and_layer_scale_does_not_decay():
    assert optim.learning_rate_factor("backbone.reg_token", 12, 0.9, 0.2) == pytest.approx(0.9**13)
    with torch.device("meta"):
        network = nn.ModuleDict({"backbone": vit.create("vit_small_patch14_reg4_dinov2")})
    groups = optim.parameter_groups(network, config.resolved(specs.make(method="DINOv2")))
    decayed = {name for group in groups if group["decay"] for name in group["names"]}
    assert "backbone.reg_token" in decayed
    assert not any("ls1.gamma" in name for name in decayed)


def test_dinov2_clips_backbone_and_heads_each_as_a_whole():
    student, h = make_dinov2(ibotSeparateHead=True, clipGrad=3.0)
    for parameter in student.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    before = torch.stack([p.grad.norm() for p in student.parameters()]).norm()
    student.ibot_head.mlp[0].bias.grad.zero_()
    total = optim.clip(student, h)
    for part in ("backbone", "dino_head", "ibot_head"):
        mine = [p.grad for name, p in student.named_parameters() if name.startswith(part) or (part == "backbone" and name == "mask_token")]
        assert torch.stack([g.norm() for g in mine]).norm().item() == pytest.approx(3.0, rel=1e-3)
    assert total.item() == pytest.approx(before.item(), rel=1e-3)


def test_frozen_prototypes_of_dinov2_have_a_rate_of_zero_and_the_rest_of_the_heads_not():
    student, h = make_dinov2()
    optimizer = optim.adamw(student, h)
    optim.apply(schedules.Values(0.1, 0.04, 0.992, 0.04, True), optimizer)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert (rates["dino_head.last_layer.weight_v"], rates["dino_head.last_layer.weight_g"]) == (0.0, 0.0)
    assert rates["dino_head.mlp.0.weight"] == 0.1
