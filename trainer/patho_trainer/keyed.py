"""Random numbers of the training step without state: each is a pure function of (seed, step, sample, use).

A resumed run, and a run on another number of processes, draw the same ones. The generator is that of `data.draws` (Philox); the
sampler's uses have small numbers there, the ones here start above them.
"""

import numpy as np
from numpy import typing as npt

from patho_trainer.data import draws

CROP = 1 << 8
"""Uses CROP + view: the crops of a view."""
DROP_PATH = 1 << 16
"""Uses DROP_PATH + view: stochastic depth of a view."""
MASK_STRATUM, MASK_RATIO, MASK_BLOCKS = 1 << 17, (1 << 17) + 1, (1 << 17) + 64
"""Which crops are masked and how much; MASK_RATIO + view: how much within the stratum; MASK_BLOCKS + view: where."""


def uniform(seed: int, step: int, slots: npt.ArrayLike, use: int, count: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape (slots, count). `slots` are sample numbers in the global batch; two uses never share a number."""
    slot = np.asarray(slots)[:, None]
    pairs = draws.uniforms(seed, use, step, slot, np.arange(-(-count // 2)))
    return np.stack(pairs, axis=-1).reshape(len(slot), -1)[:, :count]
