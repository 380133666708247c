"""A specification with every null filled in: what the trainer really uses. Pure."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from patho_api import pretrain
from patho_api import training as api
from patho_api.common import PositiveFloat, UnitInterval
from patho_trainer import errors


class Crops(api.Crops):
    """Multi-crop without nulls."""

    global_scale: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)]
    local_scale: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)]


class Hyperparameters(api.Training):
    """`training` of a specification without nulls: the same fields, units and rules."""

    method: Literal["DINO", "DINOv2"]
    """Method that the values were filled in for."""
    micro_batch_size: Annotated[int, Field(ge=1)]
    loss_group_size: Annotated[int, Field(ge=1)]
    learning_rate: PositiveFloat
    warmup_steps: api.Steps
    teacher_momentum: UnitInterval
    teacher_temperature: PositiveFloat
    teacher_temperature_warmup_steps: api.Steps
    norm_last_layer: bool
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    freeze_last_layer_steps: api.Steps
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    patch_embed_lr_multiplier: Annotated[float, Field(gt=0, le=1)]
    ibot_prototypes: int
    ibot_head_bottleneck_width: int
    crops: Crops

    @property
    def loss_groups(self) -> int:
        """Number n of loss groups: group g holds the samples i of the global batch with i mod n = g."""
        return self.batch_size // self.loss_group_size


def resolved(spec: pretrain.PretrainSpec) -> Hyperparameters:
    """The hyper-parameters of a run: what the user set, and the method's reference values for the rest.

    Sources: facebookresearch/dino main_dino.py (100 epochs: warm-up 10, frozen last layer 1), facebookresearch/dinov2
    ssl_default_config.yaml (100 epochs of 1250 steps: warm-up 10, temperature warm-up 30, frozen last layer 1).
    Raises InvalidConfiguration for a micro-batch that does not hold whole loss groups of the reference's size.
    """
    training = spec.training
    given = {name: value for name in api.Training.model_fields if (value := getattr(training, name)) is not None}
    derived = {
        "loss_group_size": pretrain.loss_group_size(spec),
        "ibot_prototypes": training.prototypes,
        "ibot_head_bottleneck_width": training.head_bottleneck_width,
    }
    filled = _reference(spec.method, training.steps, training.batch_size) | derived | given | {"crops": _crops(spec.method, training.crops)}
    micro, group = filled["micro_batch_size"], filled["loss_group_size"]
    if micro % group:
        raise errors.InvalidConfiguration(
            f"training.microBatchSize: {micro} is not a multiple of the {group} patches of a loss group, and a micro-batch takes whole "
            f"groups: set lossGroupSize to {micro} or to a divisor of it"
        )
    return Hyperparameters(method=spec.method, **filled)


def _crops(method: Literal["DINO", "DINOv2"], crops: api.Crops) -> Crops:
    scales = {"DINO": ([0.4, 1.0], [0.05, 0.4]), "DINOv2": ([0.32, 1.0], [0.05, 0.32])}[method]
    given = {name: value for name in api.Crops.model_fields if (value := getattr(crops, name)) is not None}
    return Crops(**({"global_scale": scales[0], "local_scale": scales[1]} | given))


def _reference(method: Literal["DINO", "DINOv2"], steps: int, batch_size: int) -> dict[str, Any]:
    lengths = {
        "warmup_steps": round(0.1 * steps),
        "teacher_temperature_warmup_steps": round(0.3 * steps),
        "freeze_last_layer_steps": round(0.01 * steps),
        "micro_batch_size": batch_size,
    }
    if method == "DINO":
        return lengths | {
            "learning_rate": 5e-4 * batch_size / 256,
            "teacher_momentum": 0.996,
            "teacher_temperature": 0.04,
            "norm_last_layer": True,
            "drop_path": 0.1,
            "layer_decay": 1.0,
            "patch_embed_lr_multiplier": 1.0,
        }
    return lengths | {
        "learning_rate": 4e-3 * math.sqrt(batch_size / 1024),
        "teacher_momentum": 0.992,
        "teacher_temperature": 0.07,
        "norm_last_layer": False,
        "drop_path": 0.3,
        "layer_decay": 0.9,
        "patch_embed_lr_multiplier": 0.2,
    }
