"""DINOv2 (arXiv 2304.07193): `build` makes student and teacher, `step` computes the losses of a micro-batch, `update` ends a step.

Used as `dino` is. Beside DINO's loss on class tokens there is iBOT's on masked tokens (arXiv 2111.07832), and a regulariser that spreads
the class tokens of a loss group.

V views (2 global + n local crops), B samples here, M masked tokens, T tokens of a global crop, D width, K prototypes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from patho_api import pretrain
from patho_trainer import config, schedules
from patho_trainer.data import masking
from patho_trainer.methods import ema, losses, rounds
from patho_trainer.models import drop_path, heads, init, masked, vit

Reduce: TypeAlias = Callable[[torch.Tensor], object]


@dataclasses.dataclass
class Centre:
    """The moving centre of one kind of teacher outputs, for softmax centring."""

    center_K: torch.Tensor
    sum_K: torch.Tensor
    """Sum of this process's teacher logits since the last update."""
    count: torch.Tensor
    """How many."""

    @classmethod
    def zero(cls, prototypes: int, device: torch.device | str) -> "Centre":
        """At the start."""
        return cls(*(torch.zeros(size, device=device) for size in ((prototypes,), (prototypes,), ())))

    def add(self, logits_MK: torch.Tensor) -> None:
        """Take outputs into the next centre."""
        self.sum_K += logits_MK.sum(0)
        self.count += len(logits_MK)

    def update(self, momentum: float, all_reduce: Reduce) -> None:
        """Move towards the mean over all processes; stay where there was no output."""
        all_reduce(self.sum_K)
        all_reduce(self.count)
        moved_K = losses.update_center(self.center_K, self.sum_K / self.count.clamp(min=1), momentum)
        self.center_K.copy_(torch.where(self.count > 0, moved_K, self.center_K))
        self.sum_K.zero_()
        self.count.zero_()


@dataclasses.dataclass
class Method:
    """All that DINOv2 trains and remembers."""

    student: masked.MaskedNetwork
    teacher: masked.MaskedNetwork
    cls: Centre
    ibot: Centre
    hyperparameters: config.Hyperparameters

    @property
    def embed_dim(self) -> int:
        """Width of the exported features."""
        return int(self.teacher.backbone.num_features)

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.cls.center_K.device

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything a checkpoint needs between two steps, beside the optimizer."""
        state = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        state |= {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()}
        return state | {"center": self.cls.center_K, "ibot_center": self.ibot.center_K}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave, in place."""
        for prefix, network in (("student.", self.student), ("teacher.", self.teacher)):
            network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.cls.center_K.copy_(state["center"])
        self.ibot.center_K.copy_(state["ibot_center"])


def build(spec: pretrain.PretrainSpec, device: torch.device | str, bucket: init.Reader | None = None) -> Method:
    """Student and teacher with equal weights; the same on every process. `bucket` reads `model.init.url`.

    Raises InvalidConfiguration for an architecture that DINOv2 cannot train, crops that do not fit it, or weights that cannot be had.
    """
    h, architecture = config.resolved(spec), spec.model.architecture
    vit.check_crops(architecture, h.crops)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(h.seed)
        student = _network(init.backbone(spec.model, img_size_px=h.crops.global_size_px, drop_path=0.0, bucket=bucket), h, architecture)
        teacher = _network(vit.create(architecture, img_size_px=h.crops.global_size_px), h, architecture)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    centres = (Centre.zero(h.prototypes, device), Centre.zero(_ibot_prototypes(h), device))
    method = Method(student.to(device), teacher.to(device), *centres, h)
    if h.compile:
        student.compile()
        teacher.compile()
    return method


def _ibot_prototypes(h: config.Hyperparameters) -> int:
    return h.ibot_prototypes if h.ibot_separate_head else h.prototypes


def _network(backbone: vit.Backbone, h: config.Hyperparameters, architecture: str) -> masked.MaskedNetwork:
    def head(prototypes: int, bottleneck_width: int) -> heads.ProjectionHead:
        return heads.ProjectionHead(
            backbone.num_features,
            hidden_width=h.head_hidden_width,
            bottleneck_width=bottleneck_width,
            prototypes=prototypes,
            norm_last_layer=h.norm_last_layer,
        )

    dino_head = head(h.prototypes, h.head_bottleneck_width)
    ibot_head = head(h.ibot_prototypes, h.ibot_head_bottleneck_width) if h.ibot_separate_head else None
    adopted = masked.adopted(backbone, architecture)
    return masked.MaskedNetwork(adopted, dino_head, ibot_head, activation_checkpointing=h.activation_checkpointing)


def step(
    method: Method,
    crops_VBCHW: Sequence[torch.Tensor],
    values: schedules.Values,
    *,
    step: int,
    slots: Sequence[int],
    student: nn.Module | None = None,
    all_reduce: Reduce = lambda _: None,
) -> dict[str, torch.Tensor]:
    """Losses of a micro-batch of whole loss groups: scalars, sums over its samples divided by the global batch size: shares add up.

    `crops_VBCHW` are 2 global and n local crops, each (B, 3, size, size); `slots` are the samples' numbers in the global batch.
    `student` is the method's student, perhaps wrapped for distributed training; `all_reduce` sums a tensor over all processes in place
    (SinkhornKnopp: all of them call `step` equally often). Only `loss` carries a gradient; the terms in it are not yet weighted.
    """
    h, device = method.hyperparameters, method.device
    scale: dict[str, Any] = {"student_temperature": h.student_temperature, "batch_size": h.batch_size}
    masks_CT = _masks(method, crops_VBCHW[0].shape[-1], step, slots)
    chosen_M = masks_CT.flatten().nonzero().flatten().to(device)
    kept_LS = _kept(method, step, slots, len(crops_VBCHW))
    with torch.autocast(device.type, torch.bfloat16, enabled=h.precision == "BFloat16"):
        with torch.no_grad():
            teacher = method.teacher(crops_VBCHW[:2], chosen_M)
        out = (student or method.student)(crops_VBCHW, chosen_M, masks_CT.to(device), kept_LS)
    targets_2BK, targets_MK = _targets(method, teacher, values.teacher_temperature, all_reduce)
    terms = {
        "dino": losses.view_loss(out.logits_VBK.float(), targets_2BK, student_temperature=h.student_temperature, batch_size=h.batch_size)
    }
    loss = terms["dino"]
    if h.ibot_weight > 0:
        weight_M = (1 / masks_CT.sum(1, keepdim=True)).expand(masks_CT.shape)[masks_CT].to(device)
        terms["ibot"] = losses.ibot_loss(out.token_logits_MK.float(), targets_MK, weight_M, **scale)
        loss = loss + h.ibot_weight * terms["ibot"]
    members = torch.from_numpy(rounds.members(slots, h)).to(device)
    features_GND = out.features_2BD[:, members].flatten(0, 1)  # the two views of a sample are not each other's neighbours
    if h.koleo_weight > 0:
        terms["koleo"] = losses.koleo_loss(features_GND, batch_size=h.batch_size)
        loss = loss + h.koleo_weight * terms["koleo"]
    if h.kde_weight > 0:
        terms["kde"] = losses.kde_loss(features_GND, concentration=h.kde_concentration, batch_size=h.batch_size)
        loss = loss + h.kde_weight * terms["kde"]
    terms = {name: term.detach() for name, term in terms.items()}
    return {"loss": loss, **terms, "teacher_entropy": losses.entropy(targets_2BK).sum() / (2 * h.batch_size)}


def _masks(method: Method, size_px: int, step: int, slots: Sequence[int]) -> torch.Tensor:
    """Masks (2 B, T), on the CPU."""
    h, (height, width) = method.hyperparameters, method.student.backbone.patch_embed.patch_size
    grid = (size_px // height, size_px // width)
    found = masking.masks(grid, h.mask_probability, h.mask_ratio, h.batch_size, h.seed, step, slots)
    return torch.from_numpy(found).flatten(1)


def _kept(method: Method, step: int, slots: Sequence[int], views: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Rows of the global and of the local crops that the student's branches are computed for; None for all."""
    h, device = method.hyperparameters, method.device
    if h.drop_path == 0:
        return None, None
    members, branches = rounds.members(slots, h), 2 * len(method.student.backbone.blocks)
    kept = [
        drop_path.subsets(h.drop_path, branches, h.seed, step, slots, members, of).to(device) if of else None
        for of in (range(2), range(2, views))
    ]
    return kept[0], kept[1]


@torch.no_grad()
def _targets(method: Method, teacher: masked.Outputs, temperature: float, all_reduce: Reduce) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's distributions for class tokens (2, B, K) and masked tokens (M, K)."""
    logits_CK, token_logits_MK = teacher.logits_VBK.float().flatten(0, 1), teacher.token_logits_MK.float()
    if method.hyperparameters.centering == "SinkhornKnopp":
        cls_CK, tokens_MK = (losses.sinkhorn_knopp(logits, temperature, all_reduce) for logits in (logits_CK, token_logits_MK))
    else:
        cls_CK = losses.teacher_distribution(logits_CK, method.cls.center_K, temperature)
        tokens_MK = losses.teacher_distribution(token_logits_MK, method.ibot.center_K, temperature)
        method.cls.add(logits_CK)
        method.ibot.add(token_logits_MK)
    return cls_CK.view(2, -1, cls_CK.shape[-1]), tokens_MK


@torch.no_grad()
def update(method: Method, values: schedules.Values, all_reduce: Reduce = lambda _: None) -> None:
    """End a step, after the optimizer's: move the centres and the teacher, heads included.

    `all_reduce` sums a tensor over all processes in place.
    """
    if method.hyperparameters.centering == "Softmax":
        for centre in (method.cls, method.ibot):
            centre.update(method.hyperparameters.center_momentum, all_reduce)
    ema.update(method.teacher, method.student, values.teacher_momentum)
