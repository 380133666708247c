"""Columns fetched by the native core, where it is installed and reaches the bucket: each range once, without Python's lock.

The core does not judge: a range that it could not get is for the transport that retries and explains (`storage`).
"""

import asyncio
import datetime
import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from patho_trainer.data import core as loader
from patho_trainer.data import ranges

core = loader.native
Key = tuple[str, str]  # scheme and root of a bucket
PATIENCE, PAUSE_SECONDS = 4, 60.0  # columns in a row of which nothing came, and for how long the core is not asked then
Arguments = tuple[str, str, dict[str, str], bool]  # of `patho_native.Fetcher`


def name() -> str:
    """Who fetches, for people."""
    return "native core, then obstore" if fetches() else "obstore (the native core is not installed)"


def fetches() -> bool:
    """Whether there is a core that can."""
    return core is not None


class Answer(NamedTuple):
    """What came back. `meta` of the object, as obstore tells it: None where no range came, or ranges of different states of it.

    `failed` of so many `requests`. `buffers[k]` is None where range k did not come.
    """

    meta: Mapping[str, Any] | None
    requests: int
    failed: int
    buffers: list[ranges.Buffer | None]


class Fetcher:
    """One bucket for the tasks of one event loop."""

    def __init__(self, of_core: Any, loop: asyncio.AbstractEventLoop) -> None:
        """`of_core` is a Fetcher of `patho_native`."""
        self._core = of_core
        self._loop = weakref.ref(loop)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._tokens = itertools.count()
        self._in_vain, self._pause_until = 0, 0.0
        loop.add_reader(of_core.fileno(), self._drain)

    async def fetch(self, path: str, starts: Sequence[int], sizes: Sequence[int]) -> Answer:
        """`sizes[k]` bytes from `starts[k]` of an object; ranges that touch are one request. A task that is cancelled cancels them."""
        token, loop = next(self._tokens), asyncio.get_running_loop()
        future = self._waiting[token] = loop.create_future()
        try:
            self._core.submit(token, path, starts, sizes)
            answer: Answer = await future
        finally:
            del self._waiting[token]
            self._core.cancel(token)
        self._learn(answer, loop.time())
        return answer

    def serves(self, now: float) -> bool:
        """False for a while where nothing comes: of a server with redirects, or one that is away, everything is asked for twice."""
        return now >= self._pause_until

    def _learn(self, answer: Answer, now: float) -> None:
        self._in_vain = 0 if answer.failed < answer.requests else self._in_vain + 1
        if self._in_vain >= PATIENCE:
            self._in_vain, self._pause_until = 0, now + PAUSE_SECONDS

    def close(self) -> None:
        """Leave the loop. Who still waits gets nothing at once: of this fetcher nothing more would come."""
        if loop := self._loop():
            loop.remove_reader(self._core.fileno())
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Answer(None, 0, 0, []))

    def _drain(self) -> None:
        for token, facts, requests, failed, spans in self._core.completed():
            future = self._waiting.get(token)
            if future and not future.done():
                buffers = [None if span is None else memoryview(span) for span in spans]
                future.set_result(Answer(_meta(facts), requests, failed, buffers))


def _meta(facts: tuple[int, str | None, float] | None) -> Mapping[str, Any] | None:
    if facts is None:
        return None
    size, etag, seconds = facts
    try:
        modified = None if etag else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a date that Python does not know
        return None
    return {"size": size, "e_tag": etag, "last_modified": modified}


class Fetchers:
    """The fetchers of a client of buckets: one for each bucket and event loop."""

    def __init__(self) -> None:
        """None yet."""
        self._held: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Key, tuple[Any, Fetcher | None]]]
        self._held = weakref.WeakKeyDictionary()

    def of(self, key: Key, store: Any, arguments: Callable[[], Arguments | None]) -> Fetcher | None:
        """The running loop's fetcher of a bucket, None where the core does not reach it (`arguments`).

        Made anew where `store`, obstore's, is not the one beside which it was made: the credentials have changed.
        """
        if not fetches():
            return None
        loop = asyncio.get_running_loop()
        mine = self._held.setdefault(loop, {})
        beside, fetcher = mine.get(key, (None, None))
        if beside is not store:
            if fetcher:
                fetcher.close()
            fetcher = _make(arguments(), loop)
            mine[key] = store, fetcher
        return fetcher if fetcher and fetcher.serves(loop.time()) else None


def _make(arguments: Arguments | None, loop: asyncio.AbstractEventLoop) -> Fetcher | None:
    try:
        return Fetcher(core.Fetcher(*arguments), loop) if arguments else None
    except (ValueError, NotImplementedError):  # options that only obstore takes; an event loop that does not watch files (Windows')
        return None
