"""Micro-batches of whole loss groups: what a process puts through the networks at once."""

from collections.abc import Sequence

import numpy as np

from patho_trainer import config, errors


def micro_batches(slots: Sequence[int], h: config.Hyperparameters, world_size: int) -> list[list[int]]:
    """Positions in `slots`, a process's sample numbers, of each of its micro-batches; ascending, groups shared out evenly.

    All processes have equally many micro-batches (`check`), because they gather sharded parameters, and balance prototypes, together.
    """
    groups = sorted({slot % h.loss_groups for slot in slots})
    shares = [set(share.tolist()) for share in np.array_split(np.array(groups), count(h, world_size))]
    return [[i for i, slot in enumerate(slots) if slot % h.loss_groups in share] for share in shares]


def count(h: config.Hyperparameters, world_size: int) -> int:
    """Micro-batches of every process in a step."""
    most_groups = -(-h.loss_groups // world_size)
    return -(-most_groups // (h.micro_batch_size // h.loss_group_size))


def members(slots: Sequence[int], h: config.Hyperparameters) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Positions (groups, samples of a group) in `slots`, which hold whole loss groups."""
    return np.argsort(np.asarray(slots) % h.loss_groups, kind="stable").reshape(-1, h.loss_group_size)


def check(h: config.Hyperparameters, world_size: int) -> None:
    """Raises InvalidConfiguration for micro-batches that cannot be shared out evenly over the processes."""
    if count(h, world_size) > h.loss_groups // world_size:
        raise errors.InvalidConfiguration(
            f"training.microBatchSize: {h.micro_batch_size} is one loss group, and {h.loss_groups} groups are not shared out evenly over "
            f"{world_size} processes, which take part in every round: set it to {2 * h.loss_group_size} or more, or a number of processes "
            f"that divides {h.loss_groups}"
        )
