"""`python -m patho_operator`: wait for the Lease, then lead until it is lost or SIGTERM comes."""

import asyncio
import dataclasses
import gc
import importlib
import importlib.metadata
import logging
import math
import os
import signal
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, cast

import kopf

from patho_operator import client, errors, handlers, health, leader, manifests, metrics, progress, relist, settings, starts, watch, worker
from patho_operator.cluster import Cluster
from patho_operator.handlers import Indexes
from patho_operator.observed import Job, Pod
from patho_operator.progress import Board, Target
from patho_operator.queue import Queue
from patho_operator.shelf import Shelf

log = logging.getLogger("patho_operator")

STOP_SECONDS = 20.0  # for kopf's tasks and unfinished turns after SIGTERM
GARBAGE = 50_000, 20, 20  # objects and rounds between collections: with Python's own a tenth of the CPU goes to them
Part = Coroutine[Any, Any, Any]


@dataclasses.dataclass(frozen=True)
class Process:
    """What lives as long as the process, leader or not."""

    settings: settings.Settings
    api: client.Client
    elector: leader.Elector
    queue: Queue
    metrics: metrics.Metrics
    pulse: health.Pulse
    stop: asyncio.Event  # set by SIGTERM

    def obey_signals(self) -> None:
        """Stop on SIGTERM and SIGINT."""
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, self.stop.set)

    async def serve(self) -> Any:
        """Health and metrics over HTTP."""
        loop = asyncio.get_running_loop()

        def pulse() -> health.Pulse:
            self.pulse.renewed, self.pulse.reached = self.elector.renewed or 0.0, self.elector.reached
            self.pulse.turned = self.queue.last_turn
            return self.pulse

        def exposition() -> bytes:
            self.metrics.queue_depth.set(self.queue.overdue())
            return self.metrics.text()

        return await health.serve(
            self.settings.port,
            healthz=lambda: health.problems(pulse(), loop.time(), leader.LEASE_SECONDS),
            readyz=lambda: health.not_ready(pulse(), loop.time()),
            metrics=exposition,
        )


async def main(known: settings.Settings) -> None:
    """The whole life of the process. Raises LeadershipLost."""
    gauges = metrics.Metrics(importlib.metadata.version("pathoscale"))
    api = await client.connect(gauges.count_request)
    elector = leader.Elector(api, known.own_namespace, known.lease, known.identity)
    process = Process(known, api, elector, Queue(), gauges, health.Pulse(relist_seconds=known.relist_seconds), asyncio.Event())
    server = await process.serve()
    process.obey_signals()
    try:
        await _until_stop(process, {"election": elector.acquire()}, may_end=True)
        if not process.stop.is_set():
            await _lead(process)
            await elector.release()
    finally:
        await server.cleanup()
        await api.close()


async def _lead(process: Process) -> None:
    """Act until SIGTERM. Raises LeadershipLost, and whatever else ends a part that must not end."""
    known, queue = process.settings, process.queue
    jobs, pods = Shelf[Job](), Shelf[Pod]()
    indexes, board, suspect, cluster = Indexes(jobs=jobs, pods=pods), Board(), set[Any](), Cluster(process.api, process.elector.fence)
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    begun = starts.Starts()
    watches = watch.both(process.api, known.namespaces, jobs, pods, lambda key: queue.add(key, begun.coalesce_seconds(key)))
    ready = (started, indexes.complete, *(each.listed for each in watches))  # a turn that knows a part of what exists deletes too much

    def listed() -> None:
        process.pulse.listed = loop.time()

    process.metrics.leader.set(1)
    listed()
    process.pulse.leading, queue.last_turn = True, math.inf  # no turn is late before all lists are there, however slow the server
    turn = worker.Worker(cluster, indexes, board, process.metrics, known.image, suspect, known.metrics_from, begun)
    lists = relist.Relist(cluster, indexes, queue, suspect, known.namespaces, listed, known.metrics_from)
    asking = progress.run(board, lambda: _targets(indexes), queue.add, known.progress_seconds, known.publish_seconds, cluster.now)
    parts: dict[str, Part] = {
        "lease": process.elector.keep(),
        "kopf": _resources(process, indexes, started),
        **{f"{each.kind}s {each.namespace}": each.run() for each in watches},
        "queue": _after(ready, queue.run(turn, known.workers)),
        "lists": _after(ready, lists.run(known.relist_seconds)),
        "progress": _after(ready, asking),
        "signals": _after((started,), _take_signals_back(process)),
    }
    await _until_stop(process, parts)


async def _until_stop(process: Process, parts: dict[str, Part], *, may_end: bool = False) -> None:
    """Run parts side by side until `stop` is set; one that fails or (unless it may) ends, ends all."""
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    tasks.append(asyncio.create_task(process.stop.wait(), name="stop"))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        if not task.cancelled() and isinstance(error := task.exception(), errors.LeadershipLost):
            raise error  # before any clean-up: another leader may act in a few seconds
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=STOP_SECONDS)
    for task in done:
        if not task.cancelled():  # kopf cancels what was started after it when it ends
            task.result()
    if not may_end and not process.stop.is_set():
        raise RuntimeError(f"{', '.join(t.get_name() for t in done)} ended by itself")


async def _resources(process: Process, indexes: Indexes, started: asyncio.Event) -> None:
    """kopf, embedded; it sets `started` when it has started, and ends by itself only on a signal."""
    namespaces = process.settings.namespaces
    with handlers.noticing_lists(indexes), handlers.noticing_first_lists(indexes, namespaces):
        await kopf.operator(
            registry=handlers.register(process.queue, indexes),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            ready_flag=started,
        )
    process.stop.set()


async def _take_signals_back(process: Process) -> None:
    """kopf takes over the signals when it starts, and needs many seconds to end."""
    process.obey_signals()
    await process.stop.wait()


async def _after(ready: Iterable[asyncio.Event], part: Part) -> None:
    for event in ready:
        await event.wait()
    await part


def _targets(indexes: Indexes) -> Iterator[Target]:
    """Whom to ask for progress."""
    for key, host in indexes.hosts():
        if host.ip:
            yield Target(key, manifests.run_id(host.run_uid, host.attempt), host.uid, host.ip)


def run() -> None:
    """The process."""
    known = settings.parse()
    logging.basicConfig(level=known.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty, level in (("kopf", logging.WARNING), ("kubernetes", logging.INFO)):  # the client logs whole bodies
        logging.getLogger(chatty).setLevel(level)
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GARBAGE)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_main_or_exit(known))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed (there is none for Windows)."""
    try:
        return cast("asyncio.AbstractEventLoop", importlib.import_module("uvloop").new_event_loop())
    except ImportError:
        return asyncio.new_event_loop()


async def _main_or_exit(known: settings.Settings) -> None:
    """Losing the Lease ends the process within this instant, whatever its tasks are doing."""
    try:
        await main(known)
    except errors.LeadershipLost as error:
        log.error("%s: ending at once", error)
        logging.shutdown()
        os._exit(1)


if __name__ == "__main__":
    run()
