"""Schedules equal the reference's at every step."""

import pytest

from patho_trainer import config, schedules
from tests.trainer.golden import numbers
from tests.trainer.methods import specs

REFERENCE = {
    "steps": 30,
    "learningRate": 5e-4 * 64 / 256,
    "warmupSteps": 10,
    "teacherTemperature": 0.07,
    "teacherTemperatureWarmupSteps": 9,
    "freezeLastLayerSteps": 2,
}


@pytest.mark.parametrize("quantity", ["learning_rate", "weight_decay", "teacher_momentum", "teacher_temperature"])
def test_a_schedule_equals_the_reference_at_every_step(quantity):
    h = config.resolved(specs.make(**REFERENCE))
    numbers.close([getattr(schedules.at(h, step), quantity) for step in range(30)], numbers.DINO["schedules"][quantity], tolerance=1e-9)


def test_the_last_layer_is_frozen_for_the_first_steps_only():
    h = config.resolved(specs.make(**REFERENCE))
    assert [schedules.at(h, step).freeze_last_layer for step in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(("warmup", "step", "rate"), [(0, 0, 1.0), (1, 0, 0.0), (4, 3, 1.0), (30, 29, 1.0)])
def test_warm_up_starts_at_zero_and_its_last_step_has_the_whole_rate(warmup, step, rate):
    assert schedules.cosine(step, 30, 1.0, 0.0, warmup_steps=warmup) == pytest.approx(rate)


DINOV2 = {
    "method": "DINOv2",
    "steps": 30,
    "batchSize": 64,
    "warmupSteps": 10,
    "teacherTemperatureWarmupSteps": 15,
    "freezeLastLayerSteps": 5,
}


@pytest.mark.parametrize("quantity", ["learning_rate", "weight_decay", "teacher_momentum", "teacher_temperature"])
def test_a_schedule_of_dinov2_equals_the_reference_at_every_step(quantity):
    h = config.resolved(specs.make(**DINOV2))
    expected = numbers.DINOV2["schedules"][quantity]
    numbers.close([getattr(schedules.at(h, step), quantity) for step in range(30)], expected, tolerance=1e-8)


def test_the_prototypes_of_dinov2_follow_the_reference_with_a_rate_of_zero_at_first():
    h = config.resolved(specs.make(**DINOV2))
    values = [schedules.at(h, step) for step in range(30)]
    rates = [0.0 if v.freeze_last_layer else v.learning_rate for v in values]
    numbers.close(rates, numbers.DINOV2["schedules"]["last_layer_learning_rate"], tolerance=1e-8)
