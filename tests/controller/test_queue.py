"""The queue: coalescing, order, back-off, bounded concurrency. Time is the loop's; nothing sleeps for luck."""

import asyncio
import contextlib

import pytest

from patho_operator import errors, queue
from patho_operator.observed import Key

A, B = Key("PathoPretrain", "lab", "a"), Key("PathoPretrain", "lab", "b")


@contextlib.asynccontextmanager
async def working(found, work, workers=4):
    """Workers on a queue, ended at the end of the block."""
    task = asyncio.create_task(found.run(work, workers))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_only_keys_that_are_due_count_as_waiting():
    found = queue.Queue()
    found.add(A)
    found.add(B, after_seconds=60)
    assert (found.overdue(), len(found)) == (1, 2)


async def test_a_key_that_is_added_many_times_is_worked_on_once():
    found, seen, done = queue.Queue(), [], asyncio.Event()

    async def work(key):
        seen.append(key)
        if key == B:
            done.set()

    for _ in range(100):
        found.add(A)
    found.add(B)
    async with working(found, work, workers=1):
        await done.wait()
    assert seen == [A, B]


async def test_a_key_is_never_worked_on_twice_at_the_same_time_but_not_forgotten_either():
    found, running, most, done = queue.Queue(), 0, 0, asyncio.Event()
    turns = []

    async def work(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if not turns:
            found.add(A)  # changed while it is worked on
        turns.append(key)
        await asyncio.sleep(0)
        running -= 1
        if len(turns) == 2:
            done.set()

    found.add(A)
    async with working(found, work):
        await done.wait()
    assert most == 1


async def test_an_earlier_time_replaces_a_later_one():
    found, done = queue.Queue(), asyncio.Event()

    async def work(key):
        done.set()

    found.add(A, 3600)
    found.add(A, 0)
    found.add(A, 7200)
    async with working(found, work):
        await asyncio.wait_for(done.wait(), 30)
    assert len(found) == 0


@pytest.mark.parametrize("error", [errors.ApiError(503, "Unavailable", "later"), ZeroDivisionError("a bug")])
async def test_one_failing_resource_does_not_stop_the_others(error):
    found, done = queue.Queue(), asyncio.Event()

    async def work(key):
        if key == A:
            raise error
        done.set()

    found.add(A)
    found.add(B)
    async with working(found, work, workers=1):
        await done.wait()
    assert len(found) == 1  # A waits for its next turn


async def test_failures_wait_longer_each_time_and_as_long_as_the_server_says(monkeypatch):
    found, waits, done = queue.Queue(), [], asyncio.Event()
    add = found.add

    def record(key, after_seconds=0.0):
        waits.append(after_seconds)
        if len(waits) == 4:
            done.set()
        add(key, 0.0)

    async def work(key):
        await asyncio.sleep(0)
        raise errors.ApiError(429, "TooManyRequests", "slow down", 3.0 if len(waits) == 2 else None)

    add(A)
    monkeypatch.setattr(found, "add", record)
    async with working(found, work, workers=1):
        await done.wait()
    assert waits[:4] == [0.5, 1.0, 3.0, 4.0]
