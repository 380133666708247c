"""The losses, against the references and by their properties."""

import math
import threading
from concurrent import futures

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


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
def test_the_class_token_loss_of_dinov2_equals_the_reference(centering):
    center = torch.zeros(PROTOTYPES)
    for call, expected in enumerate(numbers.DINOV2[f"class_loss_{centering}"]):
        student, teacher = reference_inputs(call)
        targets = balanced(centering, teacher.flatten(0, 1), center, expected["teacher_temperature"]).view_as(teacher)
        loss = losses.view_loss(student, targets)
        loss.backward()
        numbers.close(loss.detach(), expected["loss"])
        numbers.close(targets.flatten(), expected["targets"])
        numbers.close(student.grad.flatten(), expected["student_gradient"])
        center = losses.update_center(center, teacher.mean((0, 1)))
        assert centering == "sinkhorn" or numbers.close(center, expected["center_after"]) is None


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
def test_the_masked_token_loss_equals_the_reference(centering):
    masks, center = torch.tensor(numbers.DINOV2["masks"]).bool(), torch.zeros(PROTOTYPES)
    count_C = masks.sum(1)
    weight = torch.cat([torch.full((int(n),), 1 / n) for n in count_C if n])
    for call, expected in enumerate(numbers.DINOV2[f"token_loss_{centering}"]):
        tokens = int(count_C.sum())
        student, teacher = numbers.normal(60 + call, tokens, PROTOTYPES).requires_grad_(), numbers.normal(70 + call, tokens, PROTOTYPES)
        targets = balanced(centering, teacher, center, expected["teacher_temperature"])
        loss = losses.ibot_loss(student, targets, weight, batch_size=len(masks) // 2)
        loss.backward()
        numbers.close(loss.detach(), expected["loss"])
        numbers.close(targets.flatten(), expected["targets"])
        numbers.close(student.grad.flatten(), expected["student_gradient"])
        center = losses.update_center(center, teacher.mean(0))
        assert centering == "sinkhorn" or numbers.close(center, expected["center_after"]) is None


def balanced(centering, teacher, center, temperature):
    if centering == "sinkhorn":
        return losses.sinkhorn_knopp(teacher, temperature)
    return losses.teacher_distribution(teacher, center, temperature)


def test_sinkhorn_uses_every_prototype_equally_often():
    targets = losses.sinkhorn_knopp(numbers.normal(0, 60, PROTOTYPES), 0.5, iterations=30)
    torch.testing.assert_close(targets.sum(1), torch.ones(60))
    torch.testing.assert_close(targets.sum(0), torch.full((PROTOTYPES,), 60 / PROTOTYPES), rtol=1e-3, atol=0)


def test_sinkhorn_over_processes_is_that_of_the_whole_batch_though_one_holds_nothing():
    logits, shares = numbers.normal(0, 6, PROTOTYPES), ([0, 3, 5], [1, 2, 4], [])
    whole = losses.sinkhorn_knopp(logits, 0.1)
    meeting, found = threading.Barrier(len(shares)), {}

    def process(rank):
        def all_reduce(tensor):
            found[rank] = tensor.clone()
            meeting.wait()
            total = sum(found[other] for other in range(len(shares)))
            meeting.wait()
            tensor.copy_(total)

        return losses.sinkhorn_knopp(logits[shares[rank]], 0.1, all_reduce)

    with futures.ThreadPoolExecutor(len(shares)) as pool:
        parts = list(pool.map(process, range(len(shares))))
    for part, rows in zip(parts, shares, strict=True):
        torch.testing.assert_close(part, whole[rows])


def test_koleo_and_its_gradient_equal_the_reference():
    features, expected = numbers.normal(80, 8, 6).requires_grad_(), numbers.DINOV2["koleo"]
    loss = losses.koleo_loss(features[None])
    loss.backward()
    numbers.close(loss.detach(), expected["loss"])
    numbers.close(features.grad.flatten(), expected["gradient"])


@pytest.mark.parametrize("regulariser", [losses.koleo_loss, losses.kde_loss])
def test_groups_do_not_see_each_other_and_their_shares_add_up(regulariser):
    features = numbers.normal(0, 2, 4, 6)
    shares = [regulariser(group[None], batch_size=8) for group in features]
    torch.testing.assert_close(sum(shares), regulariser(features))


@pytest.mark.parametrize("regulariser", [losses.koleo_loss, losses.kde_loss])
def test_following_the_gradient_spreads_features(regulariser):
    """The sign: crowded features (all near one direction) drift apart."""
    features = (torch.tensor([5.0, 0, 0, 0]) + numbers.normal(0, 16, 4)).requires_grad_()
    before = mean_cosine(features)
    optimizer = torch.optim.SGD([features], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        regulariser(features[None]).backward()
        optimizer.step()
    assert before > 0.8
    assert mean_cosine(features) < 0.4


def mean_cosine(features):
    x = torch.nn.functional.normalize(features.detach(), dim=-1)
    cosine = x @ x.T
    return float((cosine.sum() - len(x)) / (len(x) * (len(x) - 1)))


def test_kde_is_lowest_for_spread_features_and_highest_for_collapsed_ones():
    spread, collapsed = torch.eye(6)[None], torch.ones(1, 6, 6)
    assert losses.kde_loss(collapsed).item() == pytest.approx(5.0)
    assert losses.kde_loss(spread).item() == pytest.approx(math.log((math.exp(5.0) + 5) / 6))
