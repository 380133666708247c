"""Parameter groups, clipping and freezing, against the reference."""

import pytest
import torch
from torch import nn

from patho_trainer import config, optim, schedules
from patho_trainer.methods import dino
from tests.trainer.golden import numbers
from tests.trainer.methods import specs


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
