"""One turn on one resource: look, plan, look again live where it matters, carry out."""

import dataclasses
import datetime
import logging
import time

from patho_api import names

from patho_operator import errors, metrics, models, subject, times, trouble
from patho_operator.cluster import Cluster
from patho_operator.handlers import Indexes, Json
from patho_operator.observed import Key, Observed, Problem
from patho_operator.plan import Plan
from patho_operator.progress import Board
from patho_operator.reconcile import reconcile
from patho_operator.subject import Subject

log = logging.getLogger(__name__)

REFUSED_SECONDS = 30.0  # until a child that was refused is tried again


@dataclasses.dataclass
class Worker:
    """What a turn needs."""

    cluster: Cluster
    indexes: Indexes
    board: Board
    metrics: metrics.Metrics
    image: str
    suspect: set[Key]  # resources whose indexes were found to be wrong: looked at live

    async def __call__(self, key: Key) -> float | None:
        """Work on a resource once; seconds until the next look. Raises ApiError, NotYet."""
        start, result = time.monotonic(), "error"
        try:
            again = await self._turn(key)
            result = "done"
        except errors.Conflict:
            result = "conflict"
            raise
        finally:
            self.metrics.reconcile_seconds.observe(time.monotonic() - start)
            self.metrics.reconciles.labels(key.kind, result).inc()
        return again

    async def _turn(self, key: Key) -> float | None:
        live = key in self.suspect
        body = await self.cluster.get(key) if live else self.indexes.body(key)
        if body is None and not live:
            live, body = True, await self.cluster.get(key)
        if body is None:
            self._forget(key)
            return None
        found, plan = await self._plan(key, body, live)
        if plan.consequential and not live:
            body = await self.cluster.get(key)
            if body is None:
                self._forget(key)
                return None
            found, plan = await self._plan(key, body, live=True)
        self.suspect.discard(key)
        return await self._execute(key, found, plan)

    async def _plan(self, key: Key, body: Json, live: bool) -> tuple[Subject, Plan]:
        found = subject.parse(body)
        observed = await self._observe(key, found, live)
        now = datetime.datetime.now(times.UTC)
        plan = reconcile(found, observed, now, image=self.image)
        uids = trouble.worth_asking(found, observed, now) if not plan.consequential else ()
        if uids:
            observed = dataclasses.replace(observed, warnings=await self.cluster.warnings(key.namespace, uids))
            plan = reconcile(found, observed, now, image=self.image)
        return found, plan

    async def _observe(self, key: Key, found: Subject, live: bool) -> Observed:
        seen = await self.cluster.look(key) if live else self.indexes.observe(key)
        host = seen.host()
        wanted = models.waits_for(found.resource.spec) if found.resource else ""
        pretrain = self.indexes.body(Key(names.PRETRAIN, key.namespace, wanted)) if wanted else None
        return dataclasses.replace(seen, seen=self.board.seen(key, host.uid) if host else None, pretrain=pretrain)

    async def _execute(self, key: Key, found: Subject, plan: Plan) -> float | None:
        try:
            written = await self.cluster.execute(found, plan)
        except errors.Refused as refused:
            log.warning("%s %s/%s: %s", *key, refused)
            observed = dataclasses.replace(self.indexes.observe(key), problem=Problem(refused.reason, refused.message))
            plan = reconcile(found, observed, datetime.datetime.now(times.UTC), image=self.image)
            plan = dataclasses.replace(plan, deletes=(), requeue_seconds=REFUSED_SECONDS)
            written = await self.cluster.execute(found, plan)
        if written:
            self._note(key, found, written)
        self.metrics.runs.shown[key] = subject.parse(written).status if written else found.status
        return plan.requeue_seconds

    def _note(self, key: Key, before: Subject, written: Json) -> None:
        """Remember what was written until the index has it, and count what is new."""
        self.indexes.written[key] = written
        old, new = before.status, subject.parse(written).status
        for reason, more in (("incident", new.restarts - old.restarts), ("disruption", new.disruptions - old.disruptions)):
            self.metrics.restarts.labels(key.kind, reason).inc(max(0, more))
        start = times.parse(new.start_time)
        if new.phase == "Running" and old.phase == "Starting" and new.attempt == 1 and start:
            self.metrics.time_to_running.observe(times.seconds_between(start, datetime.datetime.now(times.UTC)))

    def _forget(self, key: Key) -> None:
        """The resource is gone; its children follow by their owner references."""
        self.suspect.discard(key)
        self.board.forget(key)
        self.indexes.written.pop(key, None)
        self.metrics.runs.shown.pop(key, None)
