"""Random numbers without state: a number is a function of its key, so that any patch of any step can be drawn alone.

The generator is Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), vectorised over the counter.
It is written out here because numpy promises stable streams for one generator object only, and making one for each patch costs more
than the draw.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]  # 32-bit words held in 64 bits, so that products do not overflow
Uniforms = NDArray[np.float64]

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)

# What a number is for: the fourth word of the counter, so that no two uses share a number
SHUFFLE, RESAMPLE, MAGNIFICATION, CELL, CORNER = range(5)
PER_SLIDE = 16  # added where the key is the slide, not the step
REDRAW = 1 << 20  # added for each time that a place was drawn again; above all uses of `keyed`


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four random 32-bit words for each counter; the arrays broadcast."""
    a, b, c, d = counter
    key_a, key_b = key
    for _ in range(ROUNDS):
        product_a, product_c = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            (product_c >> SHIFT) ^ b ^ np.uint64(key_a),
            product_c & LOW,
            (product_a >> SHIFT) ^ d ^ np.uint64(key_b),
            product_a & LOW,
        )
        key_a, key_b = (key_a + KEY_STEPS[0]) & 0xFFFFFFFF, (key_b + KEY_STEPS[1]) & 0xFFFFFFFF
    return a, b, c, d


def uniforms(seed: int, purpose: ArrayLike, a: ArrayLike, b: ArrayLike = 0, c: ArrayLike = 0) -> tuple[Uniforms, Uniforms]:
    """Two uniform numbers in [0, 1) for each key (a, b, c) and purpose, of 53 bits each: 32-bit integers, broadcast together."""
    counter = _word(a), _word(b), _word(c), _word(purpose)
    first, second, third, fourth = philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return _unit(first, second), _unit(third, fourth)


def permutation(seed: int, purpose: int, count: int, *key: int) -> NDArray[np.int64]:
    """A random order of range(count), keyed by at most two integers."""
    return np.argsort(uniforms(seed, purpose, np.arange(count), *key)[0], kind="stable")


def _word(value: ArrayLike) -> Words:
    return np.asarray(value, dtype=np.uint64) & LOW


def _unit(high: Words, low: Words) -> Uniforms:
    """53 of 64 bits, as a fraction."""
    return ((high << np.uint64(21)) | (low >> np.uint64(11))).astype(np.float64) * 2.0**-53
