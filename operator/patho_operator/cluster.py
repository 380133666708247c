"""The only module that reads and writes the cluster: live looks, and carrying out plans."""

import dataclasses
import datetime
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from patho_api import names
from patho_operator import client, errors, observed, times
from patho_operator.observed import Key, Observed
from patho_operator.plan import Burial, Delete, Event, Plan
from patho_operator.subject import Subject

log = logging.getLogger(__name__)

Json = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"  # merges conditions by type
DEAD = "its node did not end it within a minute after its grace period"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
NO_BODY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"  # of what was written, where nobody reads it
UNCHECKED = {"fieldValidation": "Ignore"}  # warnings of unknown fields are read by nobody, and cost a second decoding
PAGE = 500
GONE_SOON_SECONDS = 2.0  # an object of an earlier resource of the same name is on its way out
COMPONENT = "patho-operator"
PATHS = {
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Event": ("/api/v1", "events"),
    **{kind: (f"/apis/{names.API_VERSION}", plural) for kind, plural in names.PLURALS.items()},
}


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of a plan."""

    written: Json | None = None  # the resource with its new status, if that was written
    unmade: errors.ApiError | None = None  # why an optional object could not be made now; everything else was done


def path(kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """URL path of objects of a kind; an empty namespace means all of them."""
    group, plural = PATHS[kind]
    parts = [group, *(["namespaces", namespace] if namespace else []), plural, name, subresource]
    return "/".join(part for part in parts if part)


async def pages(
    api: client.Client, kind: str, namespace: str = "", selector: str = "", *, accept: str = "application/json", agent: str = client.AGENT
) -> AsyncIterator[Json]:
    """A complete list of a kind, page by page; `items` is null where there is none."""
    query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
    while True:
        answer = await api.request("GET", path(kind, namespace), query=query, accept=accept, agent=agent)
        yield answer
        following = answer["metadata"].get("continue")
        if not following:
            return
        query = query | {"continue": following}


class Cluster:
    """Live looks and writes, over one client. `fence` raises when this operator may no longer act, before each write."""

    def __init__(self, api: client.Client, fence: Callable[[], None] = lambda: None) -> None:
        self._api, self._fence = api, fence

    def now(self) -> datetime.datetime:
        """The time by the API server's clock."""
        return self._api.clock.now()

    async def get(self, key: Key) -> Json | None:
        """A resource, live; None if there is none."""
        try:
            return await self._api.request("GET", path(key.kind, key.namespace, key.name)) | {"kind": key.kind}
        except errors.NotFound:
            return None

    async def look(self, key: Key) -> Observed:
        """Jobs and pods of a run, live."""
        labels = {"labelSelector": f"{names.LABEL_RUN}={key.name},{names.LABEL_KIND}={key.kind}"}
        jobs = await self._api.request("GET", path("Job", key.namespace), query=labels)
        pods = await self._api.request("GET", path("Pod", key.namespace), query=labels)
        return Observed(jobs=tuple(map(observed.job, jobs["items"])), pods=tuple(map(observed.pod, pods["items"])))

    async def warnings(self, namespace: str, uids: Sequence[str]) -> tuple[str, ...]:
        """What Kubernetes complains of about these objects, newest first."""
        found: list[Json] = []
        for uid in uids:
            query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning"}
            found += (await self._api.request("GET", path("Event", namespace), query=query))["items"]
        newest = sorted(found, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", reverse=True)
        return tuple(dict.fromkeys(e.get("message", "") for e in newest))

    async def uids(self, kind: str, namespace: str = "", selector: str = "") -> dict[str, Json]:
        """Metadata of all objects of a kind by uid."""
        items = await self.objects(kind, namespace, selector, METADATA_ONLY)
        return {item["metadata"]["uid"]: item["metadata"] for item in items}

    async def objects(self, kind: str, namespace: str = "", selector: str = "", accept: str = "application/json") -> list[Json]:
        """All objects of a kind, read in pages."""
        return [item async for page in pages(self._api, kind, namespace, selector, accept=accept) for item in page["items"] or []]

    async def amend(self, kind: str, namespace: str, name: str, change: Sequence[Json]) -> None:
        """A JSON patch of an object of ours; its tests say of which version. A server whose object fails them answers 422: Denied."""
        await self._write("PATCH", path(kind, namespace, name), body=change, content_type=JSON_PATCH, accept=NO_BODY)

    async def execute(self, subject: Subject, plan: Plan) -> Done:
        """Carry out a plan: creates, status, deletes, burials, events.

        Raises Refused when a child cannot be made, NotYet when an old one is in the way, ApiError otherwise.
        """
        for manifest in plan.creates:
            await self._create(manifest, subject)
        refused, unmade = await self._create_optional(plan.optional, subject)
        # what could not be made is not written down as decided: it is decided again later
        status = {k: v for k, v in (plan.status or {}).items() if not (unmade and k == "evaluations")}
        written = await self._write_status(subject, status) if status else None
        for delete in plan.deletes:
            await self._delete(delete)
        for burial in plan.burials:
            await self._bury(burial)
        for event in (*plan.events, *refused):
            if not (unmade and event.reason == "EvaluationCreated"):
                await self._post(subject, event)
        return Done(written, unmade)

    async def _write(
        self, verb: str, where: str, *, body: Any, content_type: str = "application/json", accept: str = "application/json"
    ) -> Json:
        self._fence()
        query = UNCHECKED if verb != "DELETE" else None
        return await self._api.request(verb, where, query=query, body=body, content_type=content_type, accept=accept)

    async def _delete(self, delete: Delete) -> None:
        """Without a propagation policy, deleting a Job would orphan its running pods."""
        options = {"propagationPolicy": delete.propagation, "preconditions": {"uid": delete.uid}}
        try:
            await self._write("DELETE", path(delete.kind, delete.namespace, delete.name), body=options)
        except errors.NotFound:
            return
        log.info("deleted %s %s/%s", delete.kind, delete.namespace, delete.name)

    async def _bury(self, burial: Burial) -> None:
        """As Kubernetes' pod garbage collector does where the node object is gone: only a Failed pod loses the Job's finalizer."""
        now = times.write(self.now())
        why = {"reason": "DeletionByPathoscale", "message": DEAD, "lastTransitionTime": now}
        disrupted = {"type": "DisruptionTarget", "status": "True", **why}
        status = {"phase": "Failed", "reason": "NodeLost", "message": DEAD, "conditions": [disrupted]}
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background", "preconditions": {"uid": burial.uid}}
        where = path("Pod", burial.namespace, burial.name)
        try:
            await self._write(
                "PATCH", f"{where}/status", body={"metadata": {"uid": burial.uid}, "status": status}, content_type=STRATEGIC_MERGE_PATCH
            )
            await self._write("DELETE", where, body=options)
        except errors.NotFound:
            return
        log.warning("removed pod %s/%s by force: %s", burial.namespace, burial.name, DEAD)

    async def _create(self, manifest: Mapping[str, Any], subject: Subject) -> None:
        kind, namespace = manifest["kind"], subject.key.namespace
        try:
            await self._write("POST", path(kind, namespace), body=manifest, accept=NO_BODY)
        except errors.AlreadyExists:
            await self._accept_existing(manifest, subject)
        except errors.Denied as error:
            reason = "QuotaExceeded" if "exceeded quota" in error.message else error.reason or "Denied"
            raise errors.Refused(reason, f"{kind} {manifest['metadata']['name']} cannot be made: {error.message}") from error
        else:
            log.info("created %s %s/%s", kind, namespace, manifest["metadata"]["name"])

    async def _create_optional(self, wanted: Sequence[Mapping[str, Any]], subject: Subject) -> tuple[list[Event], errors.ApiError | None]:
        """Make objects without which the resource goes on: events that tell of refusals, and an error for which some could not be made."""
        refusals: list[Event] = []
        for manifest in wanted:
            try:
                await self._create(manifest, subject)
            except errors.Refused as refused:
                log.warning("%s %s/%s: %s", *subject.key, refused)
                refusals.append(Event("EvaluationFailed", refused.message, warning=True))
            except errors.ApiError as error:
                return refusals, error
        return refusals, None

    async def _accept_existing(self, manifest: Mapping[str, Any], subject: Subject) -> None:
        """An object of the wanted name exists: ours, of an earlier resource of this name, or somebody else's."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        found = await self._api.request("GET", path(kind, subject.key.namespace, name))
        owners = found["metadata"].get("ownerReferences") or []
        if any(owner["uid"] == subject.uid for owner in owners):
            return
        if any((owner["kind"], owner["name"]) == (subject.key.kind, subject.key.name) for owner in owners):
            raise errors.NotYet(f"{kind} {name} of an earlier {subject.key.kind} of this name is on its way out", GONE_SOON_SECONDS)
        sentence = f"{kind} {name} exists and is not this {subject.key.kind}'s: delete or rename it, or rename the {subject.key.kind}"
        raise errors.Refused("NameConflict", sentence)

    async def _write_status(self, subject: Subject, patch: Mapping[str, Any]) -> Json | None:
        """One merge patch, only onto the very version it was computed from."""
        key = subject.key
        body = {"metadata": {"resourceVersion": subject.resource_version, "uid": subject.uid}, "status": patch}
        try:
            return await self._write("PATCH", path(key.kind, key.namespace, key.name, "status"), body=body, content_type=MERGE_PATCH) | {
                "kind": key.kind
            }
        except errors.NotFound:
            return None

    async def _post(self, subject: Subject, event: Event) -> None:
        """One event for each reason and resource: what happens again is counted, and the newest words are kept."""
        key, now = subject.key, times.write(self.now())
        digest = hashlib.sha256(f"{subject.uid} {event.reason}".encode()).hexdigest()[:16]
        regarding = {"apiVersion": names.API_VERSION, "kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": subject.uid}
        body = {
            "metadata": {"name": f"{key.name}.{digest}", "namespace": key.namespace},
            "involvedObject": regarding,
            "reason": event.reason,
            "message": event.message[:1024],
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._write("POST", path("Event", key.namespace), body=body)
        except errors.AlreadyExists:
            await self._count(path("Event", key.namespace, f"{key.name}.{digest}"), {"lastTimestamp": now, "message": body["message"]})

    async def _count(self, event: str, changed: Json) -> None:
        """One more of an event that exists; it may end in between (Kubernetes keeps events for an hour)."""
        try:
            count = (await self._api.request("GET", event)).get("count", 1) + 1
            await self._write("PATCH", event, body=changed | {"count": count}, content_type=MERGE_PATCH)
        except errors.NotFound:
            return
