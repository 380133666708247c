"""One turn on one resource: look, plan, look again live where it matters, carry out."""

import dataclasses
import logging
import time
from collections.abc import Sequence

from patho_api import names
from patho_operator import errors, metrics, models, subject, times, trouble
from patho_operator.cluster import Cluster
from patho_operator.handlers import Glance, Indexes, Json
from patho_operator.observed import Key, Observed, Problem
from patho_operator.plan import Plan
from patho_operator.progress import Board
from patho_operator.reconcile import Peers, reconcile
from patho_operator.starts import Starts
from patho_operator.subject import Subject

log = logging.getLogger(__name__)

ASK_SECONDS = 1.0  # between questions about events: for each answer the API server reads all events of a namespace


@dataclasses.dataclass(frozen=True)
class View:
    """One look at a resource, and the plan that follows from it."""

    subject: Subject
    observed: Observed
    plan: Plan
    glance: Glance | None  # of the indexes; None: it was live


@dataclasses.dataclass
class Worker:
    """What a turn needs."""

    cluster: Cluster
    indexes: Indexes
    board: Board
    metrics: metrics.Metrics
    image: str
    suspect: set[Key]  # resources whose indexes were found to be wrong: looked at live
    metrics_from: Peers = None  # as in settings.Settings
    starts: Starts = dataclasses.field(default_factory=Starts)
    asked: float = float("-inf")  # when events were asked for last, by the monotonic clock
    told: dict[Key, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # what they said of runs that do not come up
    spoke: dict[Key, float] = dataclasses.field(default_factory=dict)  # when each status was written last, by the monotonic clock

    async def __call__(self, key: Key) -> float | None:
        """Work on a resource once; seconds until the next look. Raises ApiError, NotYet."""
        if (seconds := self._rests(key)) > 0:
            return seconds
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
        view = await self._view(key, live=key in self.suspect or self.indexes.behind(key) or self._will_begin(key))
        if view and view.plan.consequential and view.glance:
            view = await self._view(key, live=True)
        self.suspect.discard(key)
        if view is None:
            self._forget(key)
            return None
        log.debug("%s %s/%s: %s", *key, view.plan)
        return await self._execute(key, view)

    def _rests(self, key: Key) -> float:
        """Seconds for which nothing is to be done, as one glance shows; 0 where a turn is due."""
        doubtful = key in self.suspect or key in self.indexes.newer or self.indexes.ghosts
        return 0.0 if doubtful or key not in self.starts else self.starts.rests_seconds(key, self.indexes.glance(key))

    def _will_begin(self, key: Key) -> bool:
        """Whether a live look is due anyhow, so that one from the index would be in vain."""
        return key not in self.starts and self.indexes.new(key)

    async def _view(self, key: Key, *, live: bool) -> View | None:
        """The resource, what is seen, and the plan; None if there is no such resource."""
        body = None if live else self.indexes.body(key)
        glance = self.indexes.glance(key) if body else None
        body = body or await self.cluster.get(key)
        if body is None:
            return None
        view = self._planned(subject.parse(body), await self._observe(key, body, live=glance is None), glance)
        uids = trouble.worth_asking(view.subject, view.observed, self.cluster.now()) if not view.plan.consequential else ()
        if not uids:
            self.told.pop(key, None)
            return view
        words = await self._warnings(key, uids)
        return self._planned(view.subject, dataclasses.replace(view.observed, warnings=words), glance)

    async def _warnings(self, key: Key, uids: Sequence[str]) -> tuple[str, ...]:
        """What events say, or said when they were asked last: a thousand runs that start slowly must not slow each other down."""
        if time.monotonic() - self.asked >= ASK_SECONDS:
            self.asked = time.monotonic()
            self.told[key] = await self.cluster.warnings(key.namespace, uids)
        return self.told.get(key, ())

    def _planned(self, found: Subject, observed: Observed, glance: Glance | None) -> View:
        plan = reconcile(
            found,
            observed,
            self.cluster.now(),
            image=self.image,
            metrics_from=self.metrics_from,
            starting_patience_seconds=self.starts.starting_patience(),
            running_patience_seconds=self.starts.running_patience(),
            silence_seconds=time.monotonic() - self.spoke.get(found.key, float("-inf")),
        )
        return View(found, observed, plan, glance)

    async def _observe(self, key: Key, body: Json, *, live: bool) -> Observed:
        seen = self.indexes.observe(key)
        if live and (seen.jobs or seen.pods or (body.get("status") or {}).get("attempt") or key in self.starts):
            # of a resource that never began the index shows nothing: its Job's name is known, and the server refuses a second one;
            # two lists for each of a thousand new resources would be a million objects looked at
            seen = await self.cluster.look(key)
        host = seen.host()
        wanted = models.pretrain_name(body)
        pretrain = self.indexes.body(Key(names.PRETRAIN, key.namespace, wanted)) if wanted else None
        heard = self.board.seen(key, host.uid) if host else None
        begun = self.starts.has_begun(key, body["metadata"]["uid"])
        return dataclasses.replace(seen, seen=heard, pretrain=pretrain, evaluations=self.indexes.evaluations_of(key), begun=begun)

    async def _execute(self, key: Key, view: View) -> float | None:
        try:
            done = await self.cluster.execute(view.subject, view.plan)
        except errors.Refused as refused:
            log.warning("%s %s/%s: %s", *key, refused)
            problem = Problem(refused.reason, refused.message)
            view = self._planned(view.subject, dataclasses.replace(view.observed, problem=problem), view.glance)
            done = await self.cluster.execute(view.subject, dataclasses.replace(view.plan, deletes=()))
        self.metrics.runs.shown[key] = self._note(key, view, done.written) if done.written else self._unchanged(key, view)
        if done.unmade:
            raise done.unmade  # tried again with patience; nothing else had to wait for it
        return view.plan.requeue_seconds

    def _unchanged(self, key: Key, view: View) -> subject.Status:
        """Nothing was written: there was nothing to say, or the first status waits."""
        if view.subject.raw_status:
            self.starts.told(key)
        else:
            ran = self.cluster.now() if view.plan.withheld == "Running" else None
            began, seconds = bool(view.plan.creates), view.plan.rests_seconds
            self.starts.waits(key, view.subject.uid, began=began, ran=ran, glance=view.glance, seconds=seconds)
        return view.subject.status

    def _note(self, key: Key, view: View, written: Json) -> subject.Status:
        """Remember what was written until the index has it, and count what is new; returns the new status."""
        before = view.subject
        self.indexes.written[key], self.spoke[key] = written, time.monotonic()
        if view.plan.settled:
            self.indexes.settled[key] = int(written["metadata"]["resourceVersion"])
        old, new, start = before.status, subject.status_of(written), self.starts.told(key)
        for reason, more in (("incident", new.restarts - old.restarts), ("disruption", new.disruptions - old.disruptions)):
            self.metrics.restarts.labels(key.kind, reason).inc(max(0, more))
        made = times.parse(new.start_time)
        ran = start.ran if start else None
        if not ran and new.phase == "Running" and old.phase in ("", "Starting") and new.attempt == 1:
            ran = self.cluster.now()
            self.starts.ran()
        if ran and made:
            self.metrics.time_to_running.observe(times.seconds_between(made, ran))
        return new

    def _forget(self, key: Key) -> None:
        """The resource is gone; its children follow by their owner references."""
        self.suspect.discard(key)
        self.starts.told(key)
        self.spoke.pop(key, None)
        self.told.pop(key, None)
        self.board.forget(key)
        self.indexes.written.pop(key, None)
        self.indexes.settled.pop(key, None)
        self.metrics.runs.shown.pop(key, None)
