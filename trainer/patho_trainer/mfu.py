"""Model FLOPs utilisation: the arithmetic that a step needs, as a share of what the device could do (arXiv 2204.02311, appendix B).

FLOPs are counted on the model itself, with tensors that hold no data. Recomputation (activation checkpointing) is not counted.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.utils import flop_counter

from patho_api import training as api

# Dense peak of one device in FLOP/s, by a part of torch's name for it: (BFloat16, Float32 as torch computes it, without TF32).
# Source: the vendor's data sheets; of boards that differ, the SXM one, unless the name says PCIe.
PEAK_FLOPS = {
    "B200": (2.25e15, 75e12),
    "H200": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "A10": (125e12, 31.2e12),
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak of the device that torch calls `device_name`; None where the table does not know it, as for CPUs."""
    known = next((name for name in PEAK_FLOPS if name in device_name), None)
    if known is None:
        return None
    bfloat16, float32 = PEAK_FLOPS[known]
    return bfloat16 if precision == "BFloat16" else float32


def ratio(flops_per_image: float, images_per_second: float, devices: int, peak: float) -> float:
    """MFU, 0 to 1. `images_per_second` and `devices` are those of the whole run."""
    return flops_per_image * images_per_second / (devices * peak)


def per_image(student: nn.Module, training: api.Training) -> float:
    """FLOPs of one patch in a training step: the teacher sees two global crops, the student all crops and their gradients (twice the
    forward pass).

    `student` has a `features` method over images; heads count as they run once on each class token. Call it before the student is
    sharded.
    """
    crops = training.crops
    values = [*student.named_parameters(), *student.named_buffers()]
    twin = copy.deepcopy(student, {id(value): nn.Parameter(torch.empty_like(value, device="meta"), False) for _, value in values})
    one = {size: _count(lambda size=size: _pass(twin, size)) for size in (crops.global_size_px, crops.local_size_px)}  # type: ignore[misc]
    seen = 2 * one[crops.global_size_px] + crops.local_count * one[crops.local_size_px]
    return 2 * one[crops.global_size_px] + 3 * seen


def _pass(network: nn.Module, size_px: int) -> None:
    features = network.features(torch.zeros(1, 3, size_px, size_px, device="meta"))  # type: ignore[operator]
    for name, child in network.named_children():
        if name != "backbone":
            child(features)


def _count(work: Callable[[], None]) -> float:
    counter = flop_counter.FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        work()
    return float(counter.get_total_flops())
