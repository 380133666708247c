"""The two protocols of the field as plain values: how a probe is trained, and where each number comes from."""

import dataclasses
import math
from typing import Literal

STEPS = 12_500  # of linear probes, both protocols
SEGMENTATION_STEPS = 2_000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the probes of one task are trained. Epochs are passes over the training split; the last batch of one may be smaller."""

    protocol: str
    """Name and source."""
    optimizer: Literal["AdamW", "SGD"]
    """AdamW with torch's betas, or SGD with Nesterov momentum 0.9."""
    learning_rate: float
    """Base learning rate at this batch size."""
    weight_decay: float
    """Decoupled, on weights and bias."""
    batch_size: int
    """Samples a step."""
    max_steps: int
    """Steps at most."""
    patience_epochs: int
    """A run stops after this many epochs without a better validation score."""
    cosine: bool
    """Whether the learning rate falls to 0 along a half cosine over max_steps; else it is constant but for slow_epochs."""
    slow_epochs: int = 0
    """First epochs, which run at a third of the learning rate."""


def recipe(name: Literal["Eva", "Paper"], train_samples: int, val_samples: int, max_steps: int | None = None) -> Recipe:
    """The recipe of protocol `name` for a task of this size. `max_steps` None: the protocol's 12,500."""
    steps = max_steps or STEPS
    return eva(train_samples, steps) if name == "Eva" else paper(train_samples, val_samples, steps)


def eva(train_samples: int, max_steps: int = STEPS) -> Recipe:
    """kaiko-eva 0.4.5, its offline classification configurations.

    Patience is 20 % of the epochs: the formula gives the number in each of eva's files (BACH 1250, BreaKHis 500, MHIST 278, CRC 7, ...).
    The files name no schedule, so eva's HeadModule takes torch's ConstantLR with its defaults: a third of the rate for 5 epochs.
    """
    batch_size = 256
    epochs = max_steps / math.ceil(train_samples / batch_size)
    return Recipe(
        protocol="Eva (kaiko-eva 0.4.5)",
        optimizer="AdamW",
        learning_rate=3e-4,
        weight_decay=0.01,
        batch_size=batch_size,
        max_steps=max_steps,
        patience_epochs=math.ceil(0.2 * epochs),
        cosine=False,
        slow_epochs=5,
    )


def paper(train_samples: int, val_samples: int, max_steps: int = STEPS) -> Recipe:
    """arXiv 2404.15217, as documented by kaiko-eva in May 2024 (after Virchow, arXiv 2309.07778).

    A training split under 4096 samples takes batches of 256. Patience is 5 % of the epochs, counted over both splits: the formula
    gives eva's own numbers of that time (BACH 400, CRC 24, MHIST 51, PCam 9). The cosine runs over the steps, as documented;
    eva's files of that time advanced it once an epoch, without Nesterov's correction.
    """
    base_batch_size = 4096
    batch_size = base_batch_size if train_samples >= base_batch_size else 256
    epochs = max_steps * batch_size / (train_samples + val_samples)
    return Recipe(
        protocol="Paper (arXiv 2404.15217)",
        optimizer="SGD",
        learning_rate=0.01 * batch_size / base_batch_size,
        weight_decay=0.0,
        batch_size=batch_size,
        max_steps=max_steps,
        patience_epochs=math.ceil(0.05 * epochs),
        cosine=True,
    )


def segmentation(train_patches: int, max_steps: int = SEGMENTATION_STEPS) -> Recipe:
    """kaiko-eva 0.4.5, its online segmentation configurations, for a decoder on frozen features; the paper states no other.

    CoNSeP's patience of 200 epochs is 70 % of its 2,000 steps, and so it is here for every size. The schedule is `eva`'s.
    """
    batch_size = 64
    epochs = max_steps / math.ceil(train_patches / batch_size)
    return Recipe(
        protocol="Eva (kaiko-eva 0.4.5), segmentation",
        optimizer="AdamW",
        learning_rate=2e-3,
        weight_decay=0.01,
        batch_size=batch_size,
        max_steps=max_steps,
        patience_epochs=math.ceil(0.7 * epochs),
        cosine=False,
        slow_epochs=5,
    )


def learning_rate(recipe: Recipe, step: int, epoch: int) -> float:
    """Learning rate of step `step` (from 0), which lies in epoch `epoch` (from 0)."""
    if recipe.cosine:
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.max_steps))
    return recipe.learning_rate / 3 if epoch < recipe.slow_epochs else recipe.learning_rate
