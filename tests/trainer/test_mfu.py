"""FLOPs against arithmetic by hand, and the share of a device's peak."""

import itertools

import pytest
import torch

from patho_trainer import mfu
from patho_trainer.methods import dino
from tests.trainer.methods import specs


def by_hand(tokens: int, width: int, depth: int, patch_px: int, head: list[int]) -> float:
    """Multiplications and additions of one crop: patch embedding, blocks (four projections, two products, an MLP of 4x), head."""
    block = 2 * tokens * width**2 * (4 + 8) + 4 * tokens**2 * width
    embedding = 2 * (tokens - 1) * 3 * patch_px**2 * width
    return embedding + depth * block + sum(2 * a * b for a, b in itertools.pairwise(head))


def test_flops_are_those_of_the_model():
    spec = specs.make()
    student = dino.build(spec, "cpu").student
    head = [192, 32, 32, 16, 32]
    whole, part = (by_hand((size // 16) ** 2 + 1, 192, 12, 16, head) for size in (32, 16))
    assert mfu.per_image(student, spec.training) == pytest.approx(2 * whole + 3 * (2 * whole + 2 * part), rel=1e-3)


def test_counting_leaves_the_model_alone():
    student = dino.build(specs.make(), "cpu").student
    before = [p.clone() for p in student.parameters()]
    mfu.per_image(student, specs.make().training)
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "BFloat16", 989e12),
        ("NVIDIA H100 PCIe", "BFloat16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "Float32", 19.5e12),
        ("NVIDIA L40S", "BFloat16", 362e12),
        ("cpu", "Float32", None),
    ],
)
def test_the_peak_is_the_devices(device, precision, peak):
    assert mfu.peak_flops(device, precision) == peak


def test_mfu_is_work_done_over_work_possible():
    assert mfu.ratio(flops_per_image=1e12, images_per_second=400, devices=8, peak=100e12) == pytest.approx(0.5)
