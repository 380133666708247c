"""A specification with every null filled in: what the trainer really uses. Pure."""

import math
from typing import Annotated, Literal

from pydantic import Field

from patho_api import pretrain
from patho_api.common import PositiveFloat, UnitInterval


class Hyperparameters(pretrain.Training):
    """`training` of a specification without nulls: the same fields, units and rules."""

    method: Literal["DINO", "DINOv2"]
    """Method that the values were filled in for."""
    micro_batch_size: Annotated[int, Field(ge=1)]
    loss_group_size: Annotated[int, Field(ge=1)]
    learning_rate: PositiveFloat
    warmup_steps: pretrain.Steps
    teacher_momentum: UnitInterval
    teacher_temperature: PositiveFloat
    teacher_temperature_warmup_steps: pretrain.Steps
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    freeze_last_layer_steps: pretrain.Steps
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    patch_embed_lr_multiplier: Annotated[float, Field(gt=0, le=1)]


def resolved(spec: pretrain.PretrainSpec) -> Hyperparameters:
    """The hyper-parameters of a run: what the user set, and the method's reference values for the rest.

    Sources: facebookresearch/dino main_dino.py (100 epochs: warm-up 10, frozen last layer 1), facebookresearch/dinov2
    ssl_default_config.yaml (100 epochs of 1250 steps: warm-up 10, temperature warm-up 30, frozen last layer 1).
    """
    given = {name: value for name in pretrain.Training.model_fields if (value := getattr(spec.training, name)) is not None}
    return Hyperparameters(method=spec.method, **(_reference(spec.method, spec.training.steps, spec.training.batch_size) | given))


def _reference(method: Literal["DINO", "DINOv2"], steps: int, batch_size: int) -> dict[str, int | float]:
    lengths = {
        "warmup_steps": round(0.1 * steps),
        "teacher_temperature_warmup_steps": round(0.3 * steps),
        "freeze_last_layer_steps": round(0.01 * steps),
        "micro_batch_size": batch_size,
    }
    if method == "DINO":
        return lengths | {
            "learning_rate": 5e-4 * batch_size / 256,
            "loss_group_size": 1,
            "teacher_momentum": 0.996,
            "teacher_temperature": 0.04,
            "drop_path": 0.1,
            "layer_decay": 1.0,
            "patch_embed_lr_multiplier": 1.0,
        }
    return lengths | {
        "learning_rate": 4e-3 * math.sqrt(batch_size / 1024),
        "loss_group_size": math.gcd(64, batch_size),
        "teacher_momentum": 0.992,
        "teacher_temperature": 0.07,
        "drop_path": 0.3,
        "layer_decay": 0.9,
        "patch_embed_lr_multiplier": 0.2,
    }
