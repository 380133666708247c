"""The projection head equals the reference's, given the same weights."""

import pytest
import torch

from patho_trainer.models import heads
from tests.trainer.golden import numbers


def make_head(norm_last_layer=False):
    return heads.ProjectionHead(8, hidden_width=16, bottleneck_width=6, prototypes=12, norm_last_layer=norm_last_layer)


def test_output_and_gradients_equal_the_reference():
    head, x, expected = make_head(), numbers.normal(30, 4, 8).requires_grad_(), numbers.DINO["head"]
    numbers.fill(head)
    (head(x) * numbers.normal(31, 4, 12)).sum().backward()
    numbers.close(head(x).detach(), expected["output"])
    numbers.close(x.grad, expected["input_gradient"])
    numbers.close([p.grad.norm().item() for _, p in sorted(head.named_parameters())], list(expected["gradient_norms"].values()))


@pytest.mark.parametrize("frozen", [True, False])
def test_norms_of_prototypes_start_at_one_and_train_only_if_asked(frozen):
    layer = make_head(norm_last_layer=frozen).last_layer
    assert torch.equal(layer.weight_g, torch.ones(12, 1))
    assert layer.weight_g.requires_grad is not frozen


def test_logits_are_cosines_when_norms_are_one():
    logits = make_head(norm_last_layer=True)(numbers.normal(1, 100, 8))
    assert logits.abs().max() <= 1 + 1e-6
