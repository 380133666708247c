"""Pretraining, top to bottom: patches -> crops -> teacher -> student -> loss -> gradients -> finite? -> step -> EMA -> log -> checkpoint.

Every process runs `train`. There is no state but the step and the weights: patches, crops and drop-path are functions of
(seed, step, slot), so that going on after a kill is asking for the next step.
"""

import math
import types

import torch

from patho_api import status
from patho_trainer import checkpoint, config, context, distributed, diverged, errors, mfu, optim, schedules, snapshots, telemetry
from patho_trainer.data import augment, catalog, child, fetching, index, native, storage, stream
from patho_trainer.methods import dino, dinov2, rounds
from patho_trainer.models import vit


def train(ctx: context.Context) -> None:
    """Train to the last step, from the newest checkpoint if there is one.

    Raises Stopped after the save that a SIGTERM asked for, Diverged before the optimizer takes a loss that is not finite, Superseded
    when a newer process writes the checkpoints, and what index, stream and bucket raise.
    """
    world, h = ctx.world, config.resolved(ctx.spec)
    rounds.check(h, world.size)
    vit.check_crops(ctx.spec.model.architecture, h.crops)  # before the index, whose first build may take hours
    newest = distributed.on_first(world, lambda: checkpoint.latest(ctx.place.root, ctx.place.bucket))
    slides = _slides(ctx, newest)
    ctx.reporter.tell(stage="Loading", step=newest.step if newest else 0, total_steps=h.steps, checkpoint=newest)
    algorithm = dinov2 if h.method == "DINOv2" else dino
    method = algorithm.build(ctx.spec, world.device, ctx.slides)
    flops_per_image = mfu.per_image(method.student, h)
    student = distributed.spread(method.student, method.teacher, world)
    optimizer = optim.adamw(method.student, h)
    kept = snapshots.Snapshots(ctx, method, optimizer, slides.version)
    first = kept.restore(newest)
    told = telemetry.Telemetry(ctx, slides, flops_per_image)
    with kept, _patches(ctx, slides, first, told.stats) as patches:
        for done in range(first + 1, h.steps + 1):
            with told.watch("data_wait"):
                batch = next(patches)
            values = schedules.at(h, batch.step)
            terms = _gradients(algorithm, method, student, batch, values, told.watch)
            norm = optim.clip(method.student, h)
            outcome = _agree(ctx, terms, norm, told.watch, kept.ended)
            if not outcome.finite:
                raise diverged.error(ctx, batch, terms["loss"], outcome)
            with told.watch("optimizer"):
                if values.freeze_last_layer and h.method == "DINO":
                    optim.freeze_last_layer(method.student)
                optim.apply(values, optimizer)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                algorithm.update(method, values, distributed.add_up)
            told.step(done, batch, outcome, values)
            if done % h.monitor_every_steps == 0:
                kept.measured(told.health(method, outcome, kept.rankme_max))
            if outcome.saved:
                kept.collect()
            if done % ctx.spec.checkpoints.every_steps == 0 or done == h.steps or outcome.stop:
                kept.save(done)
            if outcome.stop and done < h.steps:
                kept.collect()
                raise errors.Stopped(f"stopped after step {done}, which is saved")
    ctx.reporter.flush()


def _slides(ctx: context.Context, newest: status.CheckpointRef | None) -> catalog.Catalog:
    """The slide index: the version that the run is pinned to, else built or brought up to date by all processes together."""
    spec = ctx.spec.slides
    if newest is not None:
        return _pinned(ctx, newest)

    def watch(done: int, total: int) -> None:
        """`done` and `total` are this process's slides: the others' shares are about as large."""
        ctx.obey()
        ctx.reporter.tell(stage="Indexing", step=done * ctx.world.size, total_steps=total * ctx.world.size)

    return index.build(
        [spec.source],
        spec.index,
        foreground=spec.foreground,
        patches=ctx.spec.patches,
        bucket=ctx.slides,
        rank=ctx.world.rank,
        world_size=ctx.world.size,
        builder=ctx.run_id,
        barrier=lambda: distributed.barrier(ctx.world.patient),
        agree=lambda version: distributed.of_first(ctx.world, version),
        progress=watch,
    )


def _pinned(ctx: context.Context, newest: status.CheckpointRef) -> catalog.Catalog:
    """The version of the index that a checkpoint was trained on: with another one the patches would not go on as they were."""
    version = checkpoint.config(newest.url, ctx.place.bucket)["indexVersion"]
    try:
        return index.load(ctx.spec.slides.index, version=version, bucket=ctx.slides)
    except storage.NotFound as error:
        raise errors.DataNotFound(
            f"spec.slides.index: {ctx.spec.slides.index} no longer holds version {version}, which {newest.url} was trained on: "
            "restore the index, or begin anew with another checkpoints.url"
        ) from error


def _patches(ctx: context.Context, slides: catalog.Catalog, first: int, stats: stream.Stats) -> stream.Batches | child.Batches:
    """Beside a GPU in a process of its own: thousands of patches a second would hold the interpreter's lock for a good part of a step."""
    world, training = ctx.world, ctx.spec.training
    batches = child.batches if world.device.type == "cuda" else stream.batches
    if world.rank == 0:
        print(f"tiles are decoded by: {native.name()}; ranges are fetched by: {fetching.name()}", flush=True)
    return batches(
        slides,
        ctx.spec,
        seed=training.seed,
        start_step=first,
        stop_step=training.steps,
        rank=world.rank,
        world_size=world.size,
        bucket=ctx.slides,
        stats=stats,
    )


def _gradients(
    algorithm: types.ModuleType,
    method: dino.Method | dinov2.Method,
    student: torch.nn.Module,
    batch: stream.Batch,
    values: schedules.Values,
    watch: telemetry.Stopwatch,
) -> dict[str, torch.Tensor]:
    """Gradients of the whole global batch, the same in all processes; returns this process's share of the loss terms.

    Shares are sums over samples divided by the global batch size, and are added up: so processes may hold different numbers of samples,
    and micro-batches change nothing. DDP and FSDP average over the processes, hence the factor.
    """
    h, world_size = method.hyperparameters, torch.distributed.get_world_size()
    parts = rounds.micro_batches(batch.slots, h, world_size)
    terms: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts, start=1):
        slots = [batch.slots[i] for i in part]
        with watch("augment"):
            images = batch.images if len(parts) == 1 else batch.images[part]
            crops_VBCHW = augment.multi_crop(images.to(method.device, non_blocking=True), h, h.seed, batch.step, slots)
        with distributed.accumulation(student, last=number == len(parts)):
            with watch("forward"):
                found = algorithm.step(
                    method, crops_VBCHW, values, step=batch.step, slots=slots, student=student, all_reduce=distributed.add_up
                )
            with watch("backward"):
                torch.autograd.backward(found["loss"] * world_size)
        for term, value in found.items():
            terms[term] = terms.get(term, 0) + value.detach()
    return terms


def _agree(
    ctx: context.Context, terms: dict[str, torch.Tensor], norm: torch.Tensor, watch: telemetry.Stopwatch, saved: bool
) -> telemetry.Outcome:
    """What all processes must know to do the same next: one small sum. NaN and infinity of one process reach all of them."""
    gradient_norm = float(norm)
    mine = [float(value) for value in terms.values()]
    mine += [float(not math.isfinite(gradient_norm)), float(ctx.stop.is_set()), float(saved), watch.seconds.get("data_wait", 0.0)]
    *sums, bad_norms, stops, saves, waits = distributed.total(mine)
    return telemetry.Outcome(
        terms=dict(zip(terms, sums, strict=True)),
        gradient_norm=gradient_norm,
        finite=bad_norms == 0 and all(map(math.isfinite, sums)),
        stop=stops > 0,
        saved=saves == ctx.world.size,
        wait_seconds=waits / ctx.world.size,
    )
