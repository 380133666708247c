"""The order of slides: staggered windows, distinct slides in every batch, weights."""

import collections
import logging

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patho_trainer.data import order


def slides_of(sequence, batch_size, window_steps, step):
    slots = np.arange(batch_size)
    visits = order.visits(np.full(batch_size, step), slots, batch_size, window_steps)
    return sequence.at(visits, np.zeros_like(visits))[0]


@settings(max_examples=150, deadline=None)
@given(
    count=st.one_of(st.integers(3, 3000), st.integers(3000, 30_000)),
    batch_size=st.one_of(st.integers(2, 256), st.integers(256, 2048)),
    window=st.integers(1, 20),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**53),
)
@example(count=512, batch_size=256, window=16, step=31, seed=0)
@example(count=511, batch_size=256, window=16, step=31, seed=0)
def test_every_batch_has_as_many_distinct_slides_as_there_can_be(count, batch_size, window, step, seed):
    sequence = order.order([1.0] * count, batch_size, seed)
    for s in (step, step + 1, step + window // 2):
        assert len(set(slides_of(sequence, batch_size, window, s).tolist())) == min(batch_size, count)


@settings(max_examples=100, deadline=None)
@given(
    count=st.one_of(st.integers(3, 3000), st.integers(3000, 30_000)),
    batch_size=st.integers(2, 2048),
    epoch=st.integers(1, 10**5),
    before=st.floats(0, 1),
    seed=st.integers(0, 2**53),
)
@example(count=4096, batch_size=2048, epoch=1, before=0.5, seed=0)
@example(count=30_000, batch_size=2048, epoch=3, before=0.999, seed=1)
def test_slides_are_distinct_across_the_edges_of_epochs_and_halves(count, batch_size, epoch, before, seed):
    sequence = order.order([1.0] * count, batch_size, seed)
    for edge in (epoch * count, epoch * count + count // 2):
        visits = edge - int(before * batch_size) + np.arange(batch_size)
        assert len(np.unique(sequence.at(visits, np.zeros_like(visits))[0])) == min(batch_size, count)


@settings(max_examples=60, deadline=None)
@given(
    batch_size=st.integers(2, 300),
    times=st.integers(4, 12),
    heaviest=st.floats(1.0, 2.0),
    start=st.integers(0, 10**7),
    seed=st.integers(0, 2**53),
)
def test_moderate_weights_keep_slides_distinct(batch_size, times, heaviest, start, seed):
    weights = np.random.default_rng(seed % 2**32).uniform(1.0, heaviest, times * batch_size)
    visits = start + np.arange(batch_size)
    found = order.order(weights.tolist(), batch_size, seed).at(visits, np.zeros_like(visits))[0]
    assert len(np.unique(found)) == batch_size


@pytest.mark.parametrize(("count", "batch_size"), [(3, 2), (7, 5), (600, 256), (1000, 256), (30_000, 2048)])
def test_slides_come_equally_often(count, batch_size):
    visits = np.arange(7 * count) + 11  # whole epochs, from the middle of one on
    found = order.order([1.0] * count, batch_size, 5).at(visits, np.zeros_like(visits))[0]
    counts = np.bincount(found, minlength=count)
    assert (counts.min(), counts.max()) in [(7, 7), (6, 8), (6, 7), (7, 8)]
    assert counts.sum() == 7 * count


@given(batch_size=st.integers(1, 2048), window=st.integers(1, 40), step=st.integers(0, 10**8))
def test_a_batch_is_always_consecutive_visits(batch_size, window, step):
    visits = order.visits(np.full(batch_size, step), np.arange(batch_size), batch_size, window)
    assert sorted(visits) == list(range(visits.min(), visits.min() + batch_size))


@given(batch_size=st.integers(1, 256), window=st.integers(1, 40))
def test_slots_switch_evenly_lower_ones_first(batch_size, window):
    slots = np.arange(batch_size)
    switched = [set(np.flatnonzero(order.window_position(np.full(batch_size, s), slots, batch_size, window) == 0)) for s in range(window)]
    assert max(map(len, switched)) <= -(-batch_size // window)
    in_turn = [slot for s in range(window) for slot in sorted(switched[(s + 1) % window])]
    assert in_turn == list(range(batch_size))


def test_an_epoch_visits_every_slide_once():
    sequence = order.order([1.0] * 100, 10, seed=3)
    epochs = [sequence.at(np.arange(e * 100, (e + 1) * 100), np.zeros(100, dtype=np.int64))[0] for e in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_heavier_slides_come_more_often_without_repeating_in_a_batch():
    weights = [1.0] * 60 + [2.0] * 20
    sequence = order.order(weights, 10, seed=0)
    visited = sequence.at(np.arange(30_000), np.zeros(30_000, dtype=np.int64))[0]
    share = np.isin(visited, np.arange(60, 80)).mean()
    assert share == pytest.approx(40 / 100, abs=0.01)
    assert all(len(set(visited[k : k + 10].tolist())) == 10 for k in range(0, 29_990, 7))


@pytest.mark.parametrize(("weights", "batch_size"), [([1.0] * 50 + [1000.0], 10), ([1.0, 3.0], 4)])
def test_weights_that_break_the_promise_are_honoured_with_a_warning(weights, batch_size, caplog):
    with caplog.at_level(logging.WARNING):
        sequence = order.order(weights, batch_size, seed=0)
    counts = collections.Counter(sequence.at(np.arange(20_000), np.zeros(20_000, dtype=np.int64))[0].tolist())
    assert "weights" in caplog.text
    assert counts[len(weights) - 1] / 20_000 == pytest.approx(weights[-1] / sum(weights), abs=0.1)


def test_one_slide_is_enough():
    sequence = order.order([1.0], 8, seed=0)
    assert slides_of(sequence, 8, 16, 5).tolist() == [0] * 8
