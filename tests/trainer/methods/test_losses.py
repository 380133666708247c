"""The DINO loss, against the reference and by its properties."""

import math

import pytest
import torch

from patho_trainer.methods import losses
from tests.trainer.golden import numbers

VIEWS, SAMPLES, PROTOTYPES = 5, 3, 12


def reference_inputs(call):
    student = numbers.normal(10 + call, VIEWS, SAMPLES, PROTOTYPES).requires_grad_()
    return student, numbers.normal(20 + call, 2, SAMPLES, PROTOTYPES)


def test_loss_gradient_and_centre_equal_the_reference_over_three_updates():
    center = torch.zeros(PROTOTYPES)
    for call, expected in enumerate(numbers.DINO["loss"]):
        student, teacher = reference_inputs(call)
        loss = losses.dino_loss(student, teacher, center, teacher_temperature=expected["teacher_temperature"])
        loss.backward()
        center = losses.update_center(center, teacher.mean((0, 1)))
        numbers.close(loss.detach(), expected["loss"])
        numbers.close(student.grad.flatten(0, 1), expected["student_gradient"])
        numbers.close(center, expected["center_after"])


def test_shares_of_a_batch_add_up_to_the_whole():
    student, teacher = reference_inputs(0)
    center = numbers.normal(3, PROTOTYPES)
    whole = losses.dino_loss(student, teacher, center)
    shares = [losses.dino_loss(student[:, rows], teacher[:, rows], center, batch_size=SAMPLES) for rows in ([0], [1, 2])]
    torch.testing.assert_close(sum(shares), whole)


def test_a_view_is_not_compared_with_itself():
    student, teacher = reference_inputs(0)
    loss = losses.dino_loss(student[:2], teacher, torch.zeros(PROTOTYPES))
    loss.backward()
    only_first = losses.teacher_distribution(teacher, torch.zeros(PROTOTYPES), 0.04)[0]
    expected = (torch.softmax(student[1] / 0.1, -1) - only_first) / (0.1 * 2 * SAMPLES)
    torch.testing.assert_close(student.grad[1], expected)


def test_nothing_flows_into_the_teacher():
    student, teacher = reference_inputs(0)
    teacher.requires_grad_()
    losses.dino_loss(student, teacher, torch.zeros(PROTOTYPES)).backward()
    assert teacher.grad is None


@pytest.mark.parametrize(("logits", "nats"), [(torch.zeros(8), math.log(8)), (torch.tensor([100.0, 0, 0]), 0.0)])
def test_entropy_lies_between_zero_and_the_logarithm_of_the_prototypes(logits, nats):
    assert losses.entropy(torch.softmax(logits, -1)).item() == pytest.approx(nats, abs=1e-6)
