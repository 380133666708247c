"""What a run keeps between two attempts: weights, optimizer, and where they came from."""

import importlib.metadata
import time
from typing import Any, Self

import torch

from patho_api import pretrain, status
from patho_trainer import checkpoint, config, context, errors, monitors, saving
from patho_trainer.methods import dino, dinov2

PACKAGES = ("pathoscale", "torch", "timm", "numpy", "tifffile", "imagecodecs", "simplejpeg", "openslide-bin")


class Snapshots:
    """Saves and restores a run. `health` is what the monitors said last; its maximum outlives a restart."""

    def __init__(
        self, ctx: context.Context, method: dino.Method | dinov2.Method, optimizer: torch.optim.Optimizer, index_version: str
    ) -> None:
        self._ctx = ctx
        self._method = method
        self._optimizer = optimizer
        self._index_version = index_version
        self._saver = saving.Saver(ctx.place, ctx.world, ctx.spec.checkpoints.keep)
        self._begun = self._paused_seconds = 0.0
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

    @property
    def ended(self) -> bool:
        """Whether this process's part of a save is done and `collect` would not wait."""
        return self._saver.ended

    def save(self, step: int) -> None:
        """Begin to save the state after `step` steps; all processes call it. Waits for a save that still runs."""
        begin = time.perf_counter()
        self.collect()
        self._saver.begin(step, self._state(), self._facts(step))
        self._paused_seconds = time.perf_counter() - begin
        self._ctx.metrics.checkpoint_seconds.observe(self._paused_seconds)
        self._begun = begin

    def collect(self) -> None:
        """Wait until a save that was begun is complete, and tell about it; all processes call it. Raises what went wrong with it."""
        if not self._saver.runs:
            return
        ctx = self._ctx
        if not self._saver.ended:
            ctx.reporter.tell(stage="Saving")
        reference = self._saver.collect()
        ctx.metrics.checkpoint_time.set(time.time())
        ctx.reporter.tell(stage="Training", checkpoint=reference)
        if ctx.world.reports:
            took = time.perf_counter() - self._begun
            print(f"checkpoint {reference.url} ({took:.1f} s, of which training waited {self._paused_seconds:.2f} s)", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """A save that was begun is finished, also when training ends with an error: it is from before."""
        try:
            if kind is None:
                self.collect()
        finally:
            self._saver.close()

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
    h = config.resolved(spec)
    head = {"prototypes": h.prototypes, "hidden": h.head_hidden_width, "bottleneck": h.head_bottleneck_width}
    head |= {"normLastLayer": h.norm_last_layer}
    if h.ibot_separate_head:
        head |= {"ibotPrototypes": h.ibot_prototypes, "ibotBottleneck": h.ibot_head_bottleneck_width}
    # position embeddings have the grid of the global crops
    size_px = spec.training.crops.global_size_px
    return {"method": spec.method, "architecture": spec.model.architecture, "imageSizePx": size_px, "head": head}


def check_fit(facts: dict[str, Any], wanted: dict[str, Any], url: str) -> None:
    """Raises InvalidConfiguration where a checkpoint has another identity than the run."""
    for key, value in wanted.items():
        if facts[key] != value:
            raise errors.InvalidConfiguration(
                f"{url} was trained with {key} {facts[key]}, this run has {value}: set spec.checkpoints.url to a new folder"
            )
