"""Nulls are filled in with the method's reference values; what the user set stays."""

import pytest

from patho_api import training
from patho_trainer import config
from tests.trainer.methods import specs

FILLED = [
    ("DINO", "learning_rate", 5e-4),
    ("DINO", "warmup_steps", 100),
    ("DINO", "freeze_last_layer_steps", 10),
    ("DINO", "teacher_temperature_warmup_steps", 300),
    ("DINO", "teacher_momentum", 0.996),
    ("DINO", "teacher_temperature", 0.04),
    ("DINO", "drop_path", 0.1),
    ("DINO", "layer_decay", 1.0),
    ("DINO", "loss_group_size", 1),
    ("DINO", "micro_batch_size", 256),
    ("DINOv2", "learning_rate", 2e-3),
    ("DINOv2", "teacher_momentum", 0.992),
    ("DINOv2", "teacher_temperature", 0.07),
    ("DINOv2", "layer_decay", 0.9),
    ("DINOv2", "loss_group_size", 64),
    ("DINO", "norm_last_layer", True),
    ("DINOv2", "norm_last_layer", False),
    ("DINOv2", "patch_embed_lr_multiplier", 0.2),
    ("DINOv2", "ibot_prototypes", 32),
]


@pytest.mark.parametrize(("method", "field", "value"), FILLED)
def test_a_null_becomes_the_reference_value(method, field, value):
    spec = specs.make(steps=1000, batchSize=256).model_copy(update={"method": method})
    assert getattr(config.resolved(spec), field) == pytest.approx(value)


def test_what_the_user_set_stays():
    h = config.resolved(specs.make(learningRate=0.01, warmupSteps=0, dropPath=0.0))
    assert (h.learning_rate, h.warmup_steps, h.drop_path) == (0.01, 0, 0.0)


def test_no_field_of_training_is_left_null():
    h = config.resolved(specs.make())
    assert [name for name in training.Training.model_fields if getattr(h, name) is None] == []


@pytest.mark.parametrize(("method", "scales"), [("DINO", ([0.4, 1], [0.05, 0.4])), ("DINOv2", ([0.32, 1], [0.05, 0.32]))])
def test_scales_of_crops_are_the_methods(method, scales):
    crops = config.resolved(specs.make(method=method)).crops
    assert (crops.global_scale, crops.local_scale) == scales
    assert config.resolved(specs.make(method=method, crops={"localScale": [0.1, 0.2]})).crops.local_scale == [0.1, 0.2]
