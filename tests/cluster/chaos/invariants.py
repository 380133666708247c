"""What must hold of every run at every moment, and when everything has come to rest. Pure: objects in, violations out.

`Checker` sees each change as the API server told it; `at_rest` looks at a run about which nothing more is to be done.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from patho_api import names
from patho_operator import conditions, observed, reconcile, subject

Json = dict[str, Any]


@dataclasses.dataclass
class Memory:
    """What is known of one resource (one uid)."""

    name: str
    attempt: int = 0
    restarts: int = 0
    ended: str = ""  # Succeeded or Failed, once it has been seen
    live: dict[str, int] = dataclasses.field(default_factory=dict)  # attempts of pods that hold or may come to hold a node, by pod uid
    jobs: dict[int, str] = dataclasses.field(default_factory=dict)  # uids of Jobs by attempt
    pods: dict[str, int] = dataclasses.field(default_factory=dict)  # indexes of all pods that ever were, by uid


class Checker:
    """Watches runs; `violations` holds a sentence for each rule that was broken."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._known: dict[str, Memory] = {}

    def see(self, change: str, body: Json) -> None:
        """One change (ADDED, MODIFIED, DELETED) of a resource, a Job or a pod."""
        kind = body["kind"]
        if kind in names.PLURALS:
            self._see_resource(body)
        elif kind == "Job":
            self._see_job(change, body)
        elif kind == "Pod":
            self._see_pod(change, body)

    def _memory(self, uid: str, name: str) -> Memory:
        return self._known.setdefault(uid, Memory(name))

    def _see_resource(self, body: Json) -> None:
        found = subject.parse(body)
        known = self._memory(found.uid, f"{found.key.namespace}/{found.key.name}")
        status = found.status
        if status.attempt < known.attempt:
            self._violated(known, f"the attempt fell from {known.attempt} to {status.attempt}")
        if status.restarts < known.restarts:
            self._violated(known, f"restarts fell from {known.restarts} to {status.restarts}")
        ended = status.phase if conditions.has_ended(status) else ""
        if known.ended and ended != known.ended:
            self._violated(known, f"{known.ended} was not terminal: now {status.phase}")
        limit = found.resource.spec.run_policy.max_restarts if found.resource else 10**6
        if ended != "Failed" and status.restarts > limit + 1:
            self._violated(known, f"{status.restarts} restarts, limit {limit}")
        known.attempt, known.restarts, known.ended = status.attempt, status.restarts, ended or known.ended

    def _see_job(self, change: str, body: Json) -> None:
        owner = next(iter(body["metadata"].get("ownerReferences") or []), None)
        if owner is None:
            return  # somebody orphaned it
        known = self._memory(owner["uid"], f"{body['metadata']['namespace']}/{owner['name']}")
        attempt, uid = observed.job(body).attempt, body["metadata"]["uid"]
        if change != "DELETED" and known.jobs.setdefault(attempt, uid) != uid:
            self._violated(known, f"attempt {attempt} was made twice")
        if change == "ADDED" and attempt < max(known.jobs):
            self._violated(known, f"the Job of attempt {attempt} appeared after that of attempt {max(known.jobs)}")
        if change == "ADDED" and known.ended:
            self._violated(known, f"attempt {attempt} began after the run had {known.ended}")

    def _see_pod(self, change: str, body: Json) -> None:
        pod = observed.pod(body)
        known = self._memory(pod.run_uid, f"{body['metadata']['namespace']}/{body['metadata']['labels'].get(names.LABEL_RUN)}")
        known.pods[pod.uid] = pod.index
        if change == "DELETED" or not pod.live:
            known.live.pop(pod.uid, None)
            return
        known.live[pod.uid] = pod.attempt
        if len(attempts := set(known.live.values())) > 1:
            self._violated(known, f"pods of attempts {sorted(attempts)} are alive at the same time")

    def attempts(self, uid: str) -> list[int]:
        """Attempts whose Jobs were seen."""
        return sorted(self._known[uid].jobs) if uid in self._known else []

    def indexes(self, uid: str) -> list[int]:
        """Indexes of all pods that were ever seen, one for each pod."""
        return sorted(self._known[uid].pods.values()) if uid in self._known else []

    def _violated(self, known: Memory, what: str) -> None:
        sentence = f"{known.name}: {what}"
        if sentence not in self.violations:
            self.violations.append(sentence)


def at_rest(
    body: Json, jobs: Sequence[Json], pods: Sequence[Json], now: datetime.datetime, *, image: str, pretrain: Any = None
) -> list[str]:
    """What is still to be done about a run although nothing moves any more."""
    found = subject.parse(body)
    seen = observed.Observed(jobs=tuple(map(observed.job, jobs)), pods=tuple(map(observed.pod, pods)), pretrain=pretrain)
    plan = reconcile.reconcile(found, seen, now, image=image)
    name = f"{found.key.namespace}/{found.key.name}"
    wrong = [f"{name}: the plan is not carried out: {plan}"] if plan.creates or plan.deletes or plan.status else []
    if found.status.observed_generation != found.generation:
        wrong.append(f"{name}: observedGeneration {found.status.observed_generation} of {found.generation}")
    late = [j.name for j in seen.jobs if j.attempt < found.status.attempt and not j.finished]
    return wrong + [f"{name}: {job} of an earlier attempt is still there" for job in late]


def orphans(resources: Iterable[Json], children: Iterable[Json]) -> list[str]:
    """Children whose resource does not exist."""
    alive = {body["metadata"]["uid"] for body in resources}
    return [
        f"{child['metadata']['namespace']}/{child['metadata']['name']}: {child['kind']} is an orphan"
        for child in children
        if not alive & {owner["uid"] for owner in child["metadata"].get("ownerReferences") or []}
    ]
