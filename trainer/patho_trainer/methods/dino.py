"""DINO (arXiv 2104.14294): `build` makes student and teacher, `step` computes the losses of a micro-batch, `update` ends a step.

    method = dino.build(spec, device, bucket)
    for each micro-batch:  dino.step(method, crops, values, step=..., slots=...)["loss"].backward()
    optimizer.step()
    dino.update(method, values, all_reduce)

V views (2 global + n local crops), B samples here, K prototypes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

from patho_api import pretrain
from patho_trainer import config, schedules
from patho_trainer.methods import ema, losses
from patho_trainer.models import drop_path, heads, init, vit


@dataclasses.dataclass
class Method:
    """All that DINO trains and remembers."""

    student: vit.Network
    teacher: vit.Network
    center_K: torch.Tensor
    teacher_logits_sum_K: torch.Tensor
    """Sum over this process's global crops since the last update."""
    hyperparameters: config.Hyperparameters

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.center_K.device

    @property
    def embed_dim(self) -> int:
        """Width of the exported features."""
        return int(self.teacher.backbone.num_features)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything a checkpoint needs between two steps, beside the optimizer."""
        state = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        return state | {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()} | {"center": self.center_K}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave, in place."""
        for prefix, network in (("student.", self.student), ("teacher.", self.teacher)):
            network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.center_K.copy_(state["center"])


def build(spec: pretrain.PretrainSpec, device: torch.device | str, bucket: init.Reader | None = None) -> Method:
    """Student and teacher with equal weights; the same on every process. `bucket` reads `model.init.url`.

    Raises InvalidConfiguration for an unknown architecture, crops that do not fit it, or weights that cannot be had.
    """
    h = config.resolved(spec)
    vit.check_crops(spec.model.architecture, h.crops)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(h.seed)
        student = _network(init.backbone(spec.model, img_size_px=h.crops.global_size_px, drop_path=h.drop_path, bucket=bucket), h)
        teacher = _network(vit.create(spec.model.architecture, img_size_px=h.crops.global_size_px), h)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    center_K = torch.zeros(h.prototypes, device=device)
    method = Method(student.to(device), teacher.to(device), center_K, torch.zeros_like(center_K), h)
    if h.compile:
        student.compile()
        teacher.compile()
    return method


def _network(backbone: vit.Backbone, h: config.Hyperparameters) -> vit.Network:
    head = heads.ProjectionHead(
        backbone.num_features,
        hidden_width=h.head_hidden_width,
        bottleneck_width=h.head_bottleneck_width,
        prototypes=h.prototypes,
        norm_last_layer=h.norm_last_layer,
    )
    return vit.Network(backbone, head, activation_checkpointing=h.activation_checkpointing)


def step(
    method: Method,
    crops_VBCHW: Sequence[torch.Tensor],
    values: schedules.Values,
    *,
    step: int,
    slots: Sequence[int],
    student: nn.Module | None = None,
    all_reduce: Callable[[torch.Tensor], object] = lambda _: None,  # noqa: ARG001  # DINOv2's step needs it
) -> dict[str, torch.Tensor]:
    """Losses of a micro-batch: scalars, each a sum over its samples divided by the global batch size, so that shares add up.

    `crops_VBCHW` are 2 global and n local crops, each (B, 3, size, size); `slots` are the samples' numbers in the global batch.
    `student` is the method's student, perhaps wrapped for distributed training. Only `loss` carries a gradient.
    """
    h = method.hyperparameters
    scales = drop_path.scales(method.student.drop_rates, h.seed, step, slots, len(crops_VBCHW)).to(method.device)
    with torch.autocast(method.device.type, torch.bfloat16, enabled=h.precision == "BFloat16"):
        with torch.no_grad():
            teacher_logits_2BK = method.teacher(crops_VBCHW[:2]).unflatten(0, (2, -1))
        student_logits_VBK = (student or method.student)(crops_VBCHW, scales).unflatten(0, (len(crops_VBCHW), -1))
    teacher_logits_2BK = teacher_logits_2BK.float()
    method.teacher_logits_sum_K += teacher_logits_2BK.sum((0, 1))
    loss = losses.dino_loss(
        student_logits_VBK.float(),
        teacher_logits_2BK,
        method.center_K,
        student_temperature=h.student_temperature,
        teacher_temperature=values.teacher_temperature,
        batch_size=h.batch_size,
    )
    distribution = losses.teacher_distribution(teacher_logits_2BK, method.center_K, values.teacher_temperature)
    return {"loss": loss, "teacher_entropy": losses.entropy(distribution).sum() / (2 * h.batch_size)}


@torch.no_grad()
def update(method: Method, values: schedules.Values, all_reduce: Callable[[torch.Tensor], object] = lambda _: None) -> None:
    """End a step, after the optimizer's: move the centre and the teacher.

    `all_reduce` sums a tensor over all processes in place.
    """
    h = method.hyperparameters
    all_reduce(method.teacher_logits_sum_K)
    mean_K = method.teacher_logits_sum_K / (2 * h.batch_size)
    method.center_K.copy_(losses.update_center(method.center_K, mean_K, h.center_momentum))
    method.teacher_logits_sum_K.zero_()
    ema.update(method.teacher, method.student, values.teacher_momentum)
