"""The evidence that a run leaves when its loss is no longer a finite number."""

import contextlib
import io
import json
import math

import numpy as np
import torch

from patho_trainer import context, distributed, errors, telemetry
from patho_trainer.data import stream, urls


def error(ctx: context.Context, batch: stream.Batch, loss: torch.Tensor, outcome: telemetry.Outcome) -> errors.Diverged:
    """Save the patches of the processes whose share of the loss is not finite, and say what to do; all processes call it.

    Where every share is finite (a gradient overflowed), rank 0 saves its patches.
    """
    guilty = distributed.gather(not math.isfinite(float(loss)))
    if guilty[ctx.world.rank] or (ctx.world.is_first and not any(guilty)):
        with contextlib.suppress(errors.PathoError):  # a full bucket must not hide why the run ends
            ctx.place.bucket.write(url(ctx, batch.step), evidence(batch))
    distributed.barrier()  # a process that ends has its pod end, and with it a neighbour that still writes
    training = ctx.spec.training
    knob = "training.precision to Float32 or " if training.precision == "BFloat16" else ""
    return errors.Diverged(
        f"the loss is {outcome.terms['loss']} at step {batch.step + 1} (gradient norm {outcome.gradient_norm:.3g}): set {knob}a lower "
        f"training.learningRate; the last checkpoint is from before, and the patches are in {urls.join(ctx.place.root, 'diverged', '')}"
    )


def url(ctx: context.Context, step: int) -> str:
    """Where a process leaves its patches of a step (counted from 0)."""
    return urls.join(ctx.place.root, "diverged", f"step-{step + 1:08d}-rank-{ctx.world.rank}.npz")


def evidence(batch: stream.Batch) -> bytes:
    """Patches (b, h, w, 3) uint8 as `images` and their requests, as JSON, as `requests` of a numpy archive."""
    file = io.BytesIO()
    requests = json.dumps([request._asdict() for request in batch.requests])
    np.savez_compressed(file, images=batch.images.numpy(), requests=np.array(requests))
    return file.getvalue()
