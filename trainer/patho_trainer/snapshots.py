"""What a run keeps between two attempts: weights, optimizer, and where they came from."""

import importlib.metadata
import time
from typing import Any

import safetensors.torch
import torch

from patho_api import pretrain, status
from patho_trainer import checkpoint, context, distributed, errors, monitors
from patho_trainer.methods import dino

PACKAGES = ("pathoscale", "torch", "timm", "numpy", "tifffile", "imagecodecs", "simplejpeg", "openslide-bin")


class Snapshots:
    """Saves and restores a run. `health` is what the monitors said last; its maximum outlives a restart."""

    def __init__(self, ctx: context.Context, method: dino.Method, optimizer: torch.optim.Optimizer, index_version: str) -> None:
        self._ctx = ctx
        self._method = method
        self._optimizer = optimizer
        self._index_version = index_version
        self.rankme_max = 0.0

    def restore(self, newest: status.CheckpointRef | None) -> int:
        """Take over a checkpoint; returns the next step. Raises InvalidConfiguration for one of another kind of run."""
        if newest is None:
            return 0
        facts = checkpoint.config(newest.url, self._ctx.place.bucket)
        check_fit(facts, identity(self._ctx.spec), newest.url)
        checkpoint.load(self._ctx.place, self._ctx.world, newest.url, self._state())
        self.rankme_max = facts["rankMeMax"]
        return newest.step

    def save(self, step: int) -> tuple[status.CheckpointRef, float]:
        """Save after `step` steps and delete what is no longer kept; all processes call it. Returns where, and the seconds it took."""
        ctx, begin = self._ctx, time.perf_counter()
        ctx.reporter.tell(stage="Saving")
        teacher = teacher_file(self._method) if ctx.world.is_first else b""
        reference = checkpoint.save(ctx.place, ctx.world, step, self._state(), teacher, self._facts(step))
        distributed.on_first(ctx.world, lambda: checkpoint.prune(ctx.place.root, ctx.spec.checkpoints.keep, ctx.place.bucket))
        ctx.reporter.tell(stage="Training", checkpoint=reference)
        return reference, time.perf_counter() - begin

    def measured(self, health: monitors.Health) -> None:
        """Remember the highest RankMe."""
        self.rankme_max = health.rankme_max

    def _state(self) -> checkpoint.State:
        return {"method": self._method.state_dict(), "optimizer": checkpoint.optimizer_state(self._method.student, self._optimizer)}

    def _facts(self, step: int) -> dict[str, Any]:
        ctx, training = self._ctx, self._ctx.spec.training
        return {
            **identity(ctx.spec),
            "step": step,
            "embedDim": self._method.embed_dim,
            "imageSizePx": training.crops.global_size_px,
            "normalization": training.normalization.dump(),
            "indexVersion": self._index_version,
            "rankMeMax": self.rankme_max,
            "runId": ctx.run_id,
            "attempt": ctx.attempt,
            "worldSize": ctx.world.size,
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "spec": ctx.spec.dump(),
        }


def identity(spec: pretrain.PretrainSpec) -> dict[str, Any]:
    """What must not change between the attempts of a run, because weights would not fit."""
    t = spec.training
    widths = {"prototypes": t.prototypes, "hidden": t.head_hidden_width, "bottleneck": t.head_bottleneck_width}
    return {"method": spec.method, "architecture": spec.model.architecture, "head": widths | {"normLastLayer": t.norm_last_layer}}


def check_fit(facts: dict[str, Any], wanted: dict[str, Any], url: str) -> None:
    """Raises InvalidConfiguration where a checkpoint has another identity than the run."""
    for key, value in wanted.items():
        if facts[key] != value:
            raise errors.InvalidConfiguration(
                f"{url} was trained with {key} {facts[key]}, this run has {value}: set spec.checkpoints.url to a new folder"
            )


def teacher_file(method: dino.Method) -> bytes:
    """The teacher's backbone as a safetensors file under timm's names."""
    state = {name: value.detach().cpu().contiguous() for name, value in method.teacher.backbone.state_dict().items()}
    return bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
