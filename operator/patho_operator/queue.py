"""A queue of keys: each at most once, when it is due, never by two workers at the same time; failures wait longer each time."""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Awaitable, Callable

from patho_operator import errors
from patho_operator.observed import Key

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.5, 60.0
LOOK_AGAIN_SECONDS = 0.2  # after a conflict: the event with the newer version is about to arrive
Work = Callable[[Key], Awaitable[float | None]]  # returns seconds until the key should be looked at again


class Queue:
    """Keys and when they are due, in seconds of the running loop's clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self.last_turn = 0.0  # loop time at which a worker last looked at the queue

    def __len__(self) -> int:
        """Keys that are due now or later."""
        return len(self._due)

    def overdue(self) -> int:
        """Keys that are due now and wait for a worker."""
        now = asyncio.get_running_loop().time()
        return sum(due <= now for due in self._due.values())

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """Look at a key after some seconds; an earlier time replaces a later one."""
        due = asyncio.get_running_loop().time() + after_seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    async def run(self, work: Work, workers: int) -> None:
        """Work for ever with `workers` at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(work))

    async def _worker(self, work: Work) -> None:
        while True:
            key = await self._next()
            try:
                again = await self._attempt(key, work)
            finally:
                self._busy.discard(key)
                self._changed.set()  # it may have been added while it was busy
            if again is not None:
                self.add(key, again)

    async def _attempt(self, key: Key, work: Work) -> float | None:
        """Work on one key; no failure of one resource may stop the others."""
        try:
            again = await work(key)
        except errors.NotYet as error:
            log.info("%s %s/%s: %s", *key, error)
            return error.seconds
        except errors.Conflict:
            return LOOK_AGAIN_SECONDS
        except errors.ApiError as error:
            log.warning("%s %s/%s: %s", *key, error)
            return max(self._backoff(key), error.retry_after_seconds or 0.0)
        except Exception:
            log.exception("%s %s/%s: a bug in the operator", *key)
            return self._backoff(key)
        self._failures.pop(key, None)
        return again

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(MOST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1))

    async def _next(self) -> Key:
        """The next key that is due and not being worked on."""
        loop = asyncio.get_running_loop()
        while True:
            self.last_turn = loop.time()
            self._changed.clear()
            key, wait_seconds = self._pop(loop.time())
            if key is not None:
                return key
            with contextlib.suppress(TimeoutError):
                # not wait_for: up to Python 3.11 it swallows a cancellation that comes together with the event
                async with asyncio.timeout(min(wait_seconds, 1.0)):
                    await self._changed.wait()

    def _pop(self, now: float) -> tuple[Key | None, float]:
        """A due key, or seconds until there may be one."""
        passed: list[tuple[float, Key]] = []
        found, wait_seconds = None, float("inf")
        while self._heap and found is None:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # replaced by an earlier time, or done
            elif due > now:
                wait_seconds = due - now
                break
            elif key in self._busy:
                passed.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                self._busy.add(key)
                found = key
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found, wait_seconds
