"""Batches of patches, read online out of the slides: plan, fetch, decode and resample ahead of the training step.

    with stream.batches(catalog, spec, seed=0, start_step=17, rank=0, world_size=2) as batches:
        for batch in batches:
            batch.images        # uint8 (b, h, w, 3), this process's share of the global batch

The content of a step is the sampler's: the same on any number of processes, whatever was read before. The only state is the step.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import gc
import importlib
import itertools
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, cast

import torch

from patho_api import pretrain
from patho_trainer import cores
from patho_trainer.data import buffers, reader, sampler, storage
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import stats as counters

Stats = counters.Stats  # part of this module's surface

PREFETCH_BATCHES = 4
DECODED_BYTES = 2 * 2**30  # of batches ahead; two at least
COMPRESSED_BYTES = 512 * 2**20  # of tiles ahead
ENDLESS = 2**62


@dataclasses.dataclass(frozen=True)
class Batch:
    """A process's share of a step: `images` uint8 (b, size_px, size_px, 3); `slots` are the b sample numbers in the global batch."""

    step: int
    images: torch.Tensor
    slots: tuple[int, ...]
    requests: Sequence[sampler.Request]


def batches(
    catalog: catalogs.Catalog,
    spec: pretrain.PretrainSpec,
    *,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    bucket: storage.Bucket | None = None,
    stats: Stats | None = None,
    prefetch: int = PREFETCH_BATCHES,
    threads: int | None = None,
    memory: buffers.Buffers | None = None,
) -> "Batches":
    """The batches of a rank from `start_step` on, for ever or up to `stop_step`, at most `prefetch` of them ahead.

    `memory` is where batches are made, null: of this process. `threads` decode; null: the process's share of the pod's cores
    (`spec.compute`). Reading begins at once. Close it in the end. Raises InvalidConfiguration or DataNotFound where there is nothing to
    sample; iterating raises DataNotFound for too many unreadable slides, AccessDenied, or Transient when the bucket stays away.
    """
    plan = sampler.plan(catalog, spec, seed)
    slots = sampler.rank_slots(plan.batch_size, sampler.loss_groups(spec), rank, world_size)
    bucket = bucket or storage.Bucket(spec.slides.storage)
    stats = stats or Stats()

    engine = reader.Reader(
        plan,
        slots,
        bucket,
        stats,
        max_bad_share=spec.slides.max_bad_share,
        hsv_filter=spec.training.augmentation.hsv_filter,
        stop_step=stop_step,
        threads=threads or cores.here(spec.compute),
        bytes_ahead=COMPRESSED_BYTES,
    )
    shape = (len(slots), spec.patches.size_px, spec.patches.size_px, 3)
    memory = memory or buffers.Buffers(shape)
    return Batches(engine, slots, memory, bucket, stats, range(start_step, stop_step or ENDLESS), batches_ahead(prefetch, shape))


def batches_ahead(prefetch: int, shape: tuple[int, ...]) -> int:
    """How many batches of a shape may be ready or in work at once."""
    return min(prefetch, max(2, DECODED_BYTES // math.prod(shape)))


class Batches(Iterator[Batch]):
    """What `batches` returns: an iterator with an event loop in a thread of its own. For one consumer."""

    def __init__(
        self,
        engine: reader.Reader,
        slots: tuple[int, ...],
        memory: buffers.Buffers,
        bucket: storage.Bucket,
        stats: Stats,
        steps: range,
        prefetch: int,
    ) -> None:
        """Use `batches`."""
        self._engine = engine
        self._slots = slots
        self._buffers = memory
        self._bucket = bucket
        self._stats = stats
        self._steps = iter(steps)
        self._prefetch = prefetch
        self._pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        gc.freeze()  # else every few thousand patches all of torch's objects are searched for cycles, with the training thread held up
        self._loop = _event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="patho-stream", daemon=True)
        self._thread.start()
        self._read_ahead(1)  # nothing competes with the batch that a training run waits for

    def __next__(self) -> Batch:
        """The next step's batch; waits until it is ready."""
        if not self._pending:
            self.close()
            raise StopIteration
        try:
            with self._stats.timed("wait"):
                batch = self._pending.popleft().result()
        except BaseException:  # also of a signal handler: no thread may outlive the loop that reads
            self.close()
            raise
        self._read_ahead(self._prefetch)
        ready = sum(future.done() for future in self._pending)
        self._stats.deliver(len(batch.slots), ready * len(batch.slots), self._bucket)
        return batch

    def close(self) -> None:
        """Stop reading and end all threads. May be called again."""
        if self._loop.is_closed() or sys.is_finalizing():  # at the interpreter's end its threads stand still already
            return
        self._pending.clear()
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._engine.close()
        gc.unfreeze()  # what is frozen when Python ends is never let go of, and bindings (triton's) print a page about it

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def _read_ahead(self, count: int) -> None:
        """Back-pressure: a step is begun when a batch is taken, never earlier."""
        for step in itertools.islice(self._steps, count - len(self._pending)):
            self._pending.append(asyncio.run_coroutine_threadsafe(self._batch(step), self._loop))

    async def _batch(self, step: int) -> Batch:
        images = self._buffers.take()
        requests = await self._engine.read(step, images.numpy())
        return Batch(step, images, self._slots, tuple(requests))


def _event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed (there is none for Windows): half the system calls, a twentieth of the stream's CPU time less."""
    try:
        return cast("asyncio.AbstractEventLoop", importlib.import_module("uvloop").new_event_loop())
    except ModuleNotFoundError:
        return asyncio.new_event_loop()


async def _cancel_others() -> None:
    """End every other task of the loop."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
