"""Inputs and outputs of the reference runs described in README.md."""

import json
import pathlib

import numpy as np
import torch

DINO, DINOV2, HED = (json.loads((pathlib.Path(__file__).parent / f"{name}.json").read_text()) for name in ("dino", "dinov2", "hed"))


def normal(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def fill(module):
    """Give a module the weights of the reference runs."""
    source = np.random.RandomState(7)
    for name, parameter in sorted(module.named_parameters()):
        if name.endswith("weight_g"):
            value = torch.ones_like(parameter)
        else:
            value = torch.from_numpy(source.standard_normal(tuple(parameter.shape)).astype(np.float32)) * 0.05
            value += 1 if "norm" in name and name.endswith("weight") else 0
        parameter.data.copy_(value)


def close(actual, expected, tolerance=1e-5):
    actual, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (actual, expected))
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
