"""Which slide a slot of the batch looks at: windows, visits, epochs. Pure.

A slot keeps its slide for a window of S steps. Slots switch one after the other, lower slots first, so that a batch is always B
*consecutive* visits and no step has to open B slides at once. Many slides in every batch is what keeps DINO's centre honest, therefore
distinct slides are a promise, not a likelihood: a plain shuffle of 1,000 slides gives 236 distinct ones of 256.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from patho_trainer.data import draws

Ints = NDArray[np.int64]
log = logging.getLogger(__name__)

ROUNDS_IN_CYCLE = 16  # of a weighted cycle: weights are honoured to a sixteenth of the average


def offsets(slots: Ints, batch_size: int, window_steps: int) -> Ints:
    """Steps by which a slot is ahead in its window: the lower the slot, the further ahead."""
    return (batch_size - 1 - slots) * window_steps // batch_size


def visits(steps: Ints, slots: Ints, batch_size: int, window_steps: int) -> Ints:
    """The number of the visit that a slot is in at a step: the sequence of visits is the order of slides."""
    return (steps + offsets(slots, batch_size, window_steps)) // window_steps * batch_size + slots


def window_position(steps: Ints, slots: Ints, batch_size: int, window_steps: int) -> Ints:
    """Which of the S steps of its window a slot is in."""
    return (steps + offsets(slots, batch_size, window_steps)) % window_steps


class Order(Protocol):
    """The endless sequence of slides."""

    def at(self, visits: Ints, attempts: Ints) -> tuple[Ints, Ints]:
        """The slide of each visit, and how often the sequence has come round before. Attempt r > 0 names the r-th replacement."""


def order(weights: Sequence[float], batch_size: int, seed: int) -> Order:
    """The sequence for N slides: any `batch_size` consecutive visits are distinct when N >= 2 batch_size and weights are equal.

    Fewer slides give min(N, batch_size) distinct ones. Weights too unequal for the promise are honoured, with a warning.
    """
    values = np.asarray(weights, dtype=np.float64)
    return Halves(values, batch_size, seed) if len(values) >= 2 * batch_size else Cycle(values, seed)


class Cycle:
    """Few slides: one fixed cyclic permutation, for ever. With weights, a slide comes round more often, evenly spread."""

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        count = len(weights)
        equal = bool(np.all(weights == weights[0]))
        rounds = 1 if equal else ROUNDS_IN_CYCLE
        counts = np.maximum(1, np.round(weights / weights.sum() * count * rounds)).astype(np.int64)
        slides = np.repeat(np.arange(count), counts)
        nth = np.concatenate([np.arange(n) for n in counts])
        phase = draws.uniforms(seed, draws.SHUFFLE, np.arange(count))[0]
        self._slides = slides[np.argsort((nth + phase[slides]) / counts[slides], kind="stable")]
        if not equal:
            log.warning("slide weights with fewer slides than two batches: the slides of a batch repeat more than they must")

    def at(self, visits: Ints, attempts: Ints) -> tuple[Ints, Ints]:
        """See Order."""
        length = len(self._slides)
        return self._slides[(visits + attempts * _stride(length)) % length], visits // length


class Halves:
    """Many slides: an epoch is shuffle(half 0) then shuffle(half 1), each half at least a batch long.

    Any batch spans at most two neighbouring halves, which share no slide, also across epochs. With weights, a half is a systematic
    sample without replacement, as long as the largest weight allows.
    """

    def __init__(self, weights: NDArray[np.float64], batch_size: int, seed: int) -> None:
        self._seed = seed
        middle = len(weights) // 2
        shares = weights / weights.max()  # expected visits an epoch; 1 for the heaviest
        totals = np.array([shares[:middle].sum(), shares[middle:].sum()])
        scale = max(1.0, float((batch_size / totals).max()))
        if scale > 1:
            log.warning("slide weights are too unequal for %d distinct slides in a batch: the heaviest slides repeat", batch_size)
        self._starts = (0, middle)
        self._shares = (shares[:middle] * scale, shares[middle:] * scale)
        self._lengths = tuple(int(total * scale + 1e-9) for total in totals)
        self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)

    def at(self, visits: Ints, attempts: Ints) -> tuple[Ints, Ints]:
        """See Order."""
        length = sum(self._lengths)
        epochs, positions = visits // length, (visits % length + attempts * _stride(length)) % length
        slides = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            slides[here] = self._epoch(int(epoch))[positions[here]]
        return slides, epochs

    def _make_epoch(self, epoch: int) -> Ints:
        return np.concatenate([self._make_half(epoch, half) for half in (0, 1)])

    def _make_half(self, epoch: int, half: int) -> Ints:
        """Systematic resampling in random order, then a shuffle: a slide comes floor or ceil of its expected visits."""
        shares, length = self._shares[half], self._lengths[half]
        drawn = draws.permutation(self._seed, draws.RESAMPLE, len(shares), epoch, half)
        if length < len(shares) or shares.max() > 1:
            ends = np.cumsum(shares[drawn]) * (length / shares.sum())
            start = draws.uniforms(self._seed, draws.RESAMPLE, 0xFFFFFFFF, epoch, half)[0]
            marks = np.floor(np.concatenate([[0.0], ends[:-1], [length]]) + start)
            drawn = np.repeat(drawn, np.diff(marks).astype(np.int64))
        return self._starts[half] + drawn[draws.permutation(self._seed, draws.SHUFFLE, len(drawn), epoch, half)]


def _stride(length: int) -> int:
    """How far a replacement jumps: into the other half. (Of two slides, to the other one.)"""
    return length // 2 + 1 if length > 2 else 1
