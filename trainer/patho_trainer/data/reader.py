"""Reads the patches of one process, step by step: the effects behind `stream`. Everything here runs on one event loop.

A column that cannot be read as a whole is read patch by patch; a patch that cannot be read alone is replaced by the sampler's rule.
So what becomes of a patch depends on that patch and its slide only, never on what else was read before.
"""

import asyncio
import collections
import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import openslide

from patho_trainer import errors
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import columns, copies, decode, painting, sampler, stats, storage

T = TypeVar("T")

CALLS_IN_FLIGHT = 64  # columns that are fetched at the same time; each is up to about 10 requests in flight
PATCHES_AHEAD = 1024  # that are fetched before their turn: half a second of a fast GPU, several round trips
STEPS_PLANNED = 4  # at once: the sampler's cost is by call more than by patch
OPENING_THREADS = 8
READS = 2  # of a patch alone before it counts as undecodable: the first may have been damaged on its way


class Unreadable(Exception):
    """A slide of which nothing can be read: `reason` in CamelCase."""

    def __init__(self, reason: str) -> None:
        """NotFound, Changed or, for a file that OpenSlide does not open, Undecodable."""
        super().__init__(reason)
        self.reason = reason


class Work(NamedTuple):
    """A patch of a step, and where its bytes will come from: None where the column could not be read."""

    patch: columns.Patch
    column: "asyncio.Task[painting.Bytes | None]"


class Reader:
    """Patches of some slots. `read` must be called for every step in turn; calls may overlap."""

    def __init__(
        self,
        plan: sampler.Plan,
        slots: Sequence[int],
        bucket: storage.Bucket,
        counters: stats.Stats,
        *,
        max_bad_share: float,
        hsv_filter: bool,
        stop_step: int | None,
        threads: int,
        bytes_ahead: int,
    ) -> None:
        """`bytes_ahead` bounds the compressed bytes in memory; `stop_step` is the first step that is not needed."""
        self._plan = plan
        self._rows = {slot: row for row, slot in enumerate(slots)}
        self._bucket = bucket
        self._counters = counters
        self._max_bad = max(1.0, max_bad_share * len(plan.slides)) if max_bad_share else 0.0  # one bad slide ends no run
        self._hsv_filter = hsv_filter
        self._stop_step = stop_step
        self._steps_ahead = -(-PATCHES_AHEAD // len(slots))
        held = 2 + self._steps_ahead // plan.patches.window_steps  # columns of a slot in memory: in use, next, and what is ahead of these
        self._column_bytes = bytes_ahead // (len(slots) * held)
        self._threads = threads
        self._copies = copies.Copies(bucket)
        self._painters = _pool(threads, "paint")
        self._planner = _pool(1, "plan")
        self._openers = _pool(OPENING_THREADS, "open")
        self._planning = asyncio.Lock()  # first come, first served: steps are planned in order
        self._in_flight = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._until = dict.fromkeys(slots, -1)  # the step after a slot's last column; -1 before the first
        self._works: collections.defaultdict[int, dict[int, Work]] = collections.defaultdict(dict)
        self._gone: dict[int, str] = {}  # slides of which nothing can be read, and why

    def close(self) -> None:
        """End the threads; tasks must have been cancelled."""
        for pool in (self._painters, self._planner, self._openers):
            pool.shutdown(wait=True, cancel_futures=True)

    async def read(self, step: int, out_BHWC: decode.Pixels) -> list[sampler.Request]:
        """Paint the patches of a step and return their requests, by slot.

        Raises DataNotFound for too many bad slides, and what the bucket raises (AccessDenied, Transient after its retries).
        """
        works = await self._begin(step)
        pending = {work.column for work in works if not work.column.done()}
        if pending:
            await asyncio.wait(pending)
        found = [work.column.result() for work in works]
        ready = [row for row, data in enumerate(found) if data is not None]
        jobs = [self._job(works[row].patch, found[row] or [], out_BHWC[row]) for row in ready]
        good = {row for row, painted in zip(ready, await self._paint(jobs), strict=True) if painted}
        bad = [row for row in range(len(works)) if row not in good]
        settled = await asyncio.gather(*(self._settle(works[row].patch, out_BHWC[row]) for row in bad))
        requests = [work.patch.request for work in works]
        for row, request in zip(bad, settled, strict=True):
            requests[row] = request
        return await self._stained(requests, out_BHWC) if self._hsv_filter else requests

    async def _begin(self, step: int) -> list[Work]:
        """The works of a step, by slot; begins the columns that this step needs, and those ahead of it a few steps at a time."""
        async with self._planning:
            if min(self._until.values()) < 0:  # the first batch is waited for: only what it needs
                await self._plan_until(step, step + 1)
            elif min(self._until.values()) < self._last(step + self._steps_ahead):
                await self._plan_until(step, self._last(step + self._steps_ahead + STEPS_PLANNED))
            return [work for _, work in sorted(self._works.pop(step).items())]

    def _last(self, step: int) -> int:
        return step if self._stop_step is None else min(step, self._stop_step)

    async def _plan_until(self, first: int, end: int) -> None:
        """Plan and begin all columns that start before step `end`; those of earlier steps first."""
        while due := {slot: max(first, until) for slot, until in self._until.items() if max(first, until) < end}:
            starts, slots = list(due.values()), list(due)
            begun = await self._in(self._planner, columns.ahead, self._plan, starts, slots, self._stop_step, self._column_bytes)
            for slot, column in sorted(zip(slots, begun, strict=True), key=lambda pair: pair[1].patches[0].request.step):
                self._start(slot, column)

    def _start(self, slot: int, column: columns.Column) -> None:
        task = asyncio.create_task(self._fetch(column))
        task.add_done_callback(_look)
        self._until[slot] = column.patches[-1].request.step + 1
        for patch in column.patches:
            self._works[patch.request.step][self._rows[slot]] = Work(patch, task)

    async def _fetch(self, column: columns.Column) -> painting.Bytes | None:
        """The bytes of a column; None where they cannot be had as a whole."""
        async with self._in_flight:
            with self._counters.timed("fetch"):
                try:
                    return await self._bytes(column)
                except Unreadable:
                    return None

    async def _bytes(self, column: columns.Column) -> painting.Bytes:
        """The tiles of a column, as they are numbered. Raises Unreadable."""
        slide = column.patches[0].request.slide
        if slide in self._gone:
            raise Unreadable(self._gone[slide])
        try:
            return await self._tiles(self._plan.catalog.slides[slide], column.starts, column.sizes)
        except Unreadable as error:
            self._gone.setdefault(slide, error.reason)
            raise

    async def _tiles(self, facts: catalogs.Slide, starts: Sequence[int], sizes: Sequence[int]) -> painting.Bytes:
        try:
            if facts.reader == "openslide":
                await self._in(self._openers, self._copy, facts)
            if not starts:
                await self._check(facts)
                return []
            info, buffers = await self._bucket.read_checked_async(facts.url, starts, sizes)
        except storage.NotFound as error:
            await self._check(facts)  # an object that was replaced by a shorter one has changed
            raise Unreadable("NotFound") from error
        except openslide.OpenSlideError as error:
            await self._check(facts)
            raise Unreadable("Undecodable") from error
        _compare(facts, info)
        return buffers

    def _copy(self, slide: catalogs.Slide) -> None:
        """Have a slide on this machine before threads that paint wait for it."""
        with self._copies.open(slide.url, slide.etag):
            pass

    async def _check(self, facts: catalogs.Slide) -> None:
        """Raises Unreadable where the object is gone, or is not the one that was indexed."""
        try:
            if copies.has_companions(facts.url):
                _compare(facts, await self._in(self._openers, copies.identity, self._bucket, facts.url))
            else:
                _compare(facts, await self._bucket.head_async(facts.url))
        except storage.NotFound as error:
            raise Unreadable("NotFound") from error

    async def _settle(self, patch: columns.Patch, out: decode.Pixels) -> sampler.Request:
        """The request that was painted in the end: the patch's own, or the first of its replacements that can be read."""
        while reason := await self._alone(patch, out):
            self._lament(patch.request, reason)
            request = await self._in(self._planner, self._plan.replacement, patch.request)
            if request is None:
                raise errors.DataNotFound(f"spec.slides: {sampler.MAX_REPLACEMENTS + 1} slides in a row cannot be read{self._examples()}")
            (patch,) = await self._in(self._planner, columns.patches, self._plan.catalog, [request])
        return patch.request

    async def _stained(self, requests: Sequence[sampler.Request], out_BHWC: decode.Pixels) -> list[sampler.Request]:
        """Draws again what is too pale; what becomes of a patch depends on the pixels of its slide only."""
        good = await asyncio.gather(*(self._in(self._painters, painting.is_stained, image) for image in out_BHWC))
        kept = zip(requests, good, out_BHWC, strict=True)
        return list(await asyncio.gather(*(self._redrawn(request, stained, image) for request, stained, image in kept)))

    async def _redrawn(self, request: sampler.Request, stained: bool, out: decode.Pixels) -> sampler.Request:
        """The first other place on the slide that is stained, the last one where none is."""
        while not stained and (other := await self._in(self._planner, self._plan.redraw, request)):
            (patch,) = await self._in(self._planner, columns.patches, self._plan.catalog, [other])
            self._counters.redraw()
            request = await self._settle(patch, out)
            stained = await self._in(self._painters, painting.is_stained, out)
        return request

    async def _alone(self, patch: columns.Patch, out: decode.Pixels) -> str:
        """Read and paint one patch; why it cannot be done, or nothing."""
        try:
            column = columns.alone(patch)
            for _ in range(READS):
                data = await self._bytes(column)
                if (await self._paint([self._job(column.patches[0], data, out)]))[0]:
                    return ""
        except Unreadable as error:
            return error.reason
        return "Undecodable"

    def _lament(self, request: sampler.Request, reason: str) -> None:
        self._counters.replace(reason, self._plan.catalog.slides[request.slide].id)
        bad = len(self._counters.quarantined)
        if bad > self._max_bad:
            raise errors.DataNotFound(
                f"spec.slides: {bad} of {len(self._plan.slides)} slides cannot be read, more than maxBadShare allows{self._examples()}: "
                "restore them, build the index anew, or raise maxBadShare"
            )

    def _examples(self) -> str:
        names = [f"{name} ({reason})" for name, reason in list(self._counters.quarantined.items())[:3]]
        return f", such as {', '.join(names)}" if names else ""

    def _job(self, patch: columns.Patch, data: painting.Bytes, out: decode.Pixels) -> painting.Job:
        return painting.Job(self._plan.catalog.slides[patch.request.slide], patch, data, out)

    async def _paint(self, jobs: Sequence[painting.Job]) -> list[bool]:
        """Deal jobs to the threads, one share each: steps overlap, so that none waits for the slowest. Whether each was painted."""
        size = max(1, -(-len(jobs) // self._threads))
        shares = [jobs[k : k + size] for k in range(0, len(jobs), size)]
        done = await asyncio.gather(*(self._in(self._painters, painting.paint, share, self._copies, self._counters) for share in shares))
        return [result for share in done for result in share]

    async def _in(self, pool: concurrent.futures.Executor, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


def _pool(threads: int, name: str) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=f"patho-{name}")


def _compare(facts: catalogs.Slide, info: storage.ObjectInfo) -> None:
    """Raises Unreadable where an object is not the one that was indexed."""
    if (info.size, info.etag) != (facts.size, facts.etag):
        raise Unreadable("Changed")


def _look(task: "asyncio.Task[Any]") -> None:
    """Several patches wait for a column, and a failing one ends the stream: asyncio need not report the others."""
    if not task.cancelled():
        task.exception()
