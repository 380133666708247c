"""Random numbers without state: each is a pure function of (seed, step, sample, crop, stream).

Generator: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The seed is the key, everything else
the counter, so any number can be drawn anywhere, in any order: a resumed run and another number of processes draw the same.
"""

import numpy as np
from numpy import typing as npt

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def uniform(seed: int, step: int, slots: npt.ArrayLike, stream: int, count: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape (slots, count).

    `slots` are sample numbers in the global batch, `stream` (< 2**24) names the use (crop, layer): two streams never share a number.
    """
    slot = np.asarray(slots, dtype=np.uint64)[:, None]
    blocks = np.arange(-(-count // 4), dtype=np.uint64)[None, :]
    shape = np.broadcast_shapes(slot.shape, blocks.shape)
    counter = (np.full(shape, step), np.broadcast_to(slot, shape), np.full(shape, stream), np.broadcast_to(blocks, shape))
    words = np.stack(philox([np.asarray(c, dtype=np.uint64) for c in counter], seed), axis=-1)
    return words.reshape(len(slot), -1)[:, :count] * 2.0**-32


def philox(counter: list[npt.NDArray[np.uint64]], seed: int) -> list[npt.NDArray[np.uint64]]:
    """Ten rounds over four 32-bit words (held as uint64, any shape); the seed's low and high 32 bits are the key."""
    c0, c1, c2, c3 = counter
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
        c0, c1 = (right >> _WORD) ^ c1 ^ np.uint64(key[0]), right & _LOW
        c2, c3 = (left >> _WORD) ^ c3 ^ np.uint64(key[1]), left & _LOW
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, _WEYL, strict=True)]
    return [c0, c1, c2, c3]
