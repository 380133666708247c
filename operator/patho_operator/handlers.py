"""kopf at the rim: events of resources become keys in the queue; its indexes of them, and the Jobs and pods that `watch` knows, become
what a decision looks at. Nothing is decided here.

Only `on.event` and `index` are used: kopf's other handlers put finalizers and annotations on users' objects.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any

import kopf
from kopf._cogs.clients import fetching
from kopf._core.reactor import queueing

from patho_api import names
from patho_operator import cluster, models, observed, stateless, watch
from patho_operator.observed import Job, Key, Observed, Pod
from patho_operator.queue import Queue

Json = Mapping[str, Any]
SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
Glance = tuple[tuple[str, ...], tuple[Job, ...], tuple[Pod, ...]]
KEPT_METADATA = ("name", "namespace", "uid", "generation", "resourceVersion", "deletionTimestamp")


@dataclasses.dataclass
class Indexes:
    """Small values of what was seen: resources by kopf, children by `watch`. They are hints: a resource deleted while its watch was
    down stays until the next complete list."""

    resources: Mapping[Key, Collection[str]] = dataclasses.field(default_factory=dict)  # JSON text: a third of the size of its dict
    jobs: Mapping[Key, Collection[Job]] = dataclasses.field(default_factory=dict)
    pods: Mapping[Key, Collection[Pod]] = dataclasses.field(default_factory=dict)
    evals: Mapping[Key, Collection[Key]] = dataclasses.field(default_factory=dict)  # PathoEvals by the PathoPretrain they refer to
    ghosts: set[str] = dataclasses.field(default_factory=set)  # uids that no longer exist
    newer: dict[Key, dict[str, int]] = dataclasses.field(default_factory=dict)  # versions by uid that a complete list showed
    written: dict[Key, Json] = dataclasses.field(default_factory=dict)  # what this operator wrote last, until the index has it
    settled: dict[Key, int] = dataclasses.field(default_factory=dict)  # versions of those that need no second look
    relisted: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # kopf has listed: what went before is not told
    complete: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # kopf's first lists of resources are in these indexes

    def body(self, key: Key) -> Json | None:
        """The newest known form of a resource; None if it is not known."""
        found = map(json.loads, _values(self.resources, key))  # two where one was made anew while the watch was down
        body: Json | None = max((b for b in found if b["metadata"]["uid"] not in self.ghosts), key=_version, default=None)
        self.forget_written(key, body)
        return self.written.get(key, body)

    def forget_written(self, key: Key, body: Json | None) -> None:
        """Once a resource is seen as it was written, or later, or not at all, what was written is no longer needed: of thousands that
        would be most of the memory."""
        own = self.written.get(key)
        if own and (body is None or _version(body) >= _version(own)):
            del self.written[key]

    def new(self, key: Key) -> bool:
        """Whether nothing has been done about a resource yet, as far as is known."""
        body = self.body(key)
        return body is not None and not body["status"] and not _values(self.jobs, key)

    def glance(self, key: Key) -> Glance:
        """All that is known of a run, for comparison: a hundredth of the cost of a turn."""
        return tuple(_values(self.resources, key)), tuple(_values(self.jobs, key)), tuple(_values(self.pods, key))

    def observe(self, key: Key) -> Observed:
        """Jobs and pods of a run."""
        jobs = tuple(j for j in _values(self.jobs, key) if j.uid not in self.ghosts)
        pods = tuple(p for p in _values(self.pods, key) if p.uid not in self.ghosts)
        return Observed(jobs=jobs, pods=pods)

    def waiting_for(self, key: Key) -> list[Key]:
        """PathoEvals that refer to a PathoPretrain."""
        return list(_values(self.evals, key))

    def evaluations_of(self, key: Key) -> tuple[observed.Evaluation, ...]:
        """PathoEvals of single steps of a PathoPretrain."""
        bodies = (self.body(each) for each in self.waiting_for(key))
        return tuple(found for body in bodies if body and (found := observed.evaluation(body)))

    def known(self) -> list[Key]:
        """All known resources."""
        return list(self.resources)

    def hosts(self) -> Iterator[tuple[Key, Pod]]:
        """The pod of rank 0 of every attempt that runs."""
        for key in list(self.pods):
            if key.kind in names.PLURALS and (host := self.observe(key).host()):
                yield key, host

    def versions(self, kind: str) -> dict[str, int]:
        """Versions of everything known of a kind, by uid."""
        if kind in names.PLURALS:
            bodies = (self.body(key) for key in self.known() if key.kind == kind)
            return {body["metadata"]["uid"]: _version(body) for body in bodies if body}
        index: Mapping[Key, Collection[Job | Pod]] = self.jobs if kind == "Job" else self.pods
        return {item.uid: item.version for key in list(index) for item in _values(index, key)}

    def behind(self, key: Key) -> bool:
        """Whether a complete list has shown newer objects than the watches did: events were lost, or are about to arrive."""
        if key not in self.newer:
            return False
        known = {item.uid: item.version for index in (self.jobs, self.pods) for item in _values(index, key)}
        if body := self.body(key):
            known[body["metadata"]["uid"]] = _version(body)
        if any(known.get(uid, 0) < version for uid, version in self.newer[key].items()):
            return True
        del self.newer[key]
        return False


def register(queue: Queue, indexes: Indexes) -> kopf.OperatorRegistry:
    """kopf's handlers of resources, which feed the queue and fill the indexes of them."""
    registry = kopf.OperatorRegistry()

    async def remember(resources: Any, evals: Any, **_: Any) -> None:
        indexes.resources, indexes.evals = resources, evals

    async def on_resource(body: Any, **_: Any) -> None:
        resource_changed(queue, indexes, body)

    kopf.on.login(registry=registry)(login)
    kopf.on.startup(registry=registry)(remember)
    for plural in names.PLURALS.values():
        kopf.index(names.GROUP, names.VERSION, plural, id="resources", registry=registry)(_index_resource)
        kopf.on.event(names.GROUP, names.VERSION, plural, registry=registry)(on_resource)
    kopf.index(names.GROUP, names.VERSION, names.PLURALS[names.EVAL], id="evals", registry=registry)(_index_eval)
    return registry


def resource_changed(queue: Queue, indexes: Indexes, body: Json) -> None:
    """Look at a resource and at those that depend on it; not at itself if this is the event of our own last word."""
    key = _resource_key(body)
    own = indexes.settled.pop(key, None) == _version(body)
    indexes.forget_written(key, body)
    for each in (*([] if own else [key]), *indexes.waiting_for(key), *_run_of_evaluation(body)):
        queue.add(each)


@contextlib.contextmanager
def noticing_lists(indexes: Indexes) -> Iterator[None]:
    """Set `indexes.relisted` after every list of kopf's but the first of each kind: a watch had expired (410). It tells nobody of what went
    before such a list, nor that there was one if it is empty; kopf 1.45 has no hook for it: to be dropped once one exists."""
    fetch, begun = fetching.fetch_objs, set[Any]()

    async def told(**arguments: Any) -> AsyncIterator[Any]:
        async for page in fetch(**arguments):
            yield page
        watch = arguments["resource"], arguments["namespace"]
        if watch in begun:
            indexes.relisted.set()
        begun.add(watch)

    fetching.fetch_objs = told
    try:
        yield
    finally:
        fetching.fetch_objs = fetch


@contextlib.contextmanager
def noticing_first_lists(indexes: Indexes, namespaces: Sequence[str]) -> Iterator[None]:
    """Set `indexes.complete` when every resource of every namespace (none: of the cluster) that exists at the start is in the indexes. kopf
    calls no handler before, nor any where there is no resource; kopf 1.45 has no hook for it: to be dropped once one exists."""
    watcher, indexed = queueing.watcher, set[Any]()
    watches = len(names.PLURALS) * max(1, len(set(namespaces)))

    async def wait(watch: Any, everything: Any) -> None:
        await everything.wait_for(True)
        indexed.add(watch)
        if len(indexed) == watches:
            indexes.complete.set()

    async def told(**arguments: Any) -> None:
        waiting = asyncio.create_task(wait((arguments["resource"], arguments["namespace"]), arguments["operator_indexed"]))
        try:
            await watcher(**arguments)
        finally:
            waiting.cancel()

    queueing.watcher = told
    try:
        yield
    finally:
        queueing.watcher = watcher


async def _index_resource(body: Any, **_: Any) -> dict[Key, str]:
    return {_resource_key(body): compact(body)}


async def _index_eval(body: Any, **_: Any) -> dict[Key, Key]:
    key = _resource_key(body)
    wanted = models.pretrain_name(dict(body))
    return {Key(names.PRETRAIN, key.namespace, wanted): key} if wanted else {}


def settings() -> kopf.OperatorSettings:
    """kopf's settings: nothing is posted, the cluster's definitions are not scanned."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True
    found.persistence.diffbase_storage = stateless.NoDiffBase()
    found.persistence.progress_storage = stateless.NoProgress()
    found.watching.server_timeout = watch.WATCH_SECONDS
    found.watching.client_timeout = watch.WATCH_CONNECTION_SECONDS
    found.watching.chunk_size = cluster.PAGE
    return found


async def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """kopf's own connection; the same cluster as the client's."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or os.environ.get("KUBECONFIG"):
        return kopf.login_with_kubeconfig(settings=settings)
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token = (SERVICE_ACCOUNT / "token").read_text().strip()
    return kopf.ConnectionInfo(server=server, ca_path=str(SERVICE_ACCOUNT / "ca.crt"), token=token)


def compact(body: Json) -> str:
    """What decisions need of a resource, as JSON text."""
    metadata = {name: body["metadata"][name] for name in KEPT_METADATA if name in body["metadata"]}
    parts = {name: body.get(name) or {} for name in ("spec", "status")}
    whole = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, **parts}
    return json.dumps(whole, separators=(",", ":"), default=dict)


def _resource_key(body: Json) -> Key:
    return Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _run_of_evaluation(body: Json) -> list[Key]:
    """The PathoPretrain whose spec.evaluations made a PathoEval: its scores are news there."""
    owners = body["metadata"].get("ownerReferences") or []
    return [Key(names.PRETRAIN, body["metadata"]["namespace"], owner["name"]) for owner in owners if owner["kind"] == names.PRETRAIN]


def _values(index: Mapping[Key, Collection[Any]], key: Key) -> list[Any]:
    return list(index[key]) if key in index else []


def _version(body: Json) -> int:
    """Resource versions of one resource are numbers that grow (guaranteed since Kubernetes 1.35, true before)."""
    return int(body["metadata"]["resourceVersion"])
