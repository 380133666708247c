"""Schedules as pure functions of the step, so that a resumed run needs no scheduler state. Source: facebookresearch/dino."""

import dataclasses
import math

from patho_trainer import config


@dataclasses.dataclass(frozen=True)
class Values:
    """What one step trains with."""

    learning_rate: float
    weight_decay: float
    teacher_momentum: float
    teacher_temperature: float
    freeze_last_layer: bool


def at(hyperparameters: config.Hyperparameters, step: int) -> Values:
    """The values of a step, counted from 0."""
    h = hyperparameters
    return Values(
        learning_rate=cosine(step, h.steps, h.learning_rate, h.min_learning_rate, warmup_steps=h.warmup_steps),
        weight_decay=cosine(step, h.steps, h.weight_decay, h.weight_decay_end),
        teacher_momentum=cosine(step, h.steps, h.teacher_momentum, 1.0),
        teacher_temperature=linear(step, h.teacher_temperature_warmup_steps, h.teacher_temperature_start, h.teacher_temperature),
        freeze_last_layer=step < h.freeze_last_layer_steps,
    )


def cosine(step: int, steps: int, start: float, end: float, *, warmup_steps: int = 0) -> float:
    """Half a cosine from `start` towards `end`, after a linear warm-up from 0.

    The last warm-up step has the whole `start`, and `end` itself would be reached one step after the last: as in the reference.
    """
    if step < warmup_steps:
        return linear(step, warmup_steps, 0.0, start)
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(progress, 1.0)))


def linear(step: int, length_steps: int, start: float, end: float) -> float:
    """`length_steps` evenly spaced values from `start` to `end`, both included; `end` from there on."""
    if step >= length_steps:
        return end
    return start + (end - start) * step / max(length_steps - 1, 1)
