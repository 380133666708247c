"""The facts that all decisions about a resource share, put together once. Pure."""

import dataclasses
import functools

from patho_api import common, status
from patho_api.resource import Resource
from patho_operator import incidents, models
from patho_operator.observed import Job, Observed, Pod, Time
from patho_operator.subject import Subject


@dataclasses.dataclass(frozen=True)
class Situation:
    """A resource, what is seen of it, and the time."""

    subject: Subject
    observed: Observed
    now: Time

    @property
    def resource(self) -> Resource:
        """The resource; only asked for when its specification is valid."""
        assert self.subject.resource is not None
        return self.subject.resource

    @property
    def policy(self) -> common.RunPolicy:
        """The run policy; defaults where the specification is invalid."""
        return self.subject.resource.spec.run_policy if self.subject.resource else common.RunPolicy()

    @property
    def compute(self) -> common.Compute:
        """Size and place of the pods; defaults where the specification is invalid."""
        return self.subject.resource.spec.compute if self.subject.resource else common.Compute()

    @property
    def nodes(self) -> int:
        """Pods of an attempt; as many as the present one has where the specification is invalid."""
        return self.job.parallelism if self.subject.resource is None and self.job else self.compute.nodes

    @property
    def needed(self) -> int:
        """Pods without which the run cannot train."""
        return self.compute.min_nodes or self.nodes

    @functools.cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Jobs of this very resource; `observed` also holds those of an earlier one of the same name, until they are gone."""
        return tuple(j for j in self.observed.jobs if j.owner_uid == self.subject.uid)

    @functools.cached_property
    def job(self) -> Job | None:
        """The Job of the newest attempt that exists."""
        return max(self.jobs, key=lambda j: j.attempt, default=None)

    @property
    def current(self) -> Job:
        """The same, where it is known to exist."""
        assert self.job is not None
        return self.job

    @functools.cached_property
    def attempt(self) -> int:
        """Number of the newest attempt that ever was; 0 before the first. A number is never used again, or writers of two Jobs would be
        equal before the fence: pods, or the operator's memory, tell of a first attempt whose Job went before status knew of it."""
        begun = self.observed.begun or any(p.run_uid == self.subject.uid for p in self.observed.pods)
        return max(self.subject.status.attempt, self.job.attempt if self.job else int(begun))

    @property
    def record(self) -> status.Attempt | None:
        """What status says about the newest attempt."""
        return next((a for a in self.subject.status.attempts if a.number == self.attempt), None)

    @property
    def ended(self) -> bool:
        """Whether the newest attempt has been judged to have ended."""
        return self.record is not None and self.record.end is not None

    @functools.cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Pods of the newest attempt."""
        return tuple(p for p in self.observed.pods if p.attempt == self.attempt and p.run_uid == self.subject.uid)

    @functools.cached_property
    def running(self) -> int:
        """Pods of the newest attempt whose trainer runs."""
        return sum(p.running for p in self.pods)

    @functools.cached_property
    def gathered(self) -> bool:
        """Enough pods run to train, or have done their part beside the present index 0, which hosts the rendezvous and runs."""
        host = max((p for p in self.pods if p.index == 0 and p.running), key=lambda p: p.created, default=None)
        return host is not None and self.running + sum(p.end >= host.created for p in self.done) >= self.needed

    @functools.cached_property
    def done(self) -> tuple[Pod, ...]:
        """Pods of the newest attempt that have done their part: their indexes are never run again."""
        return tuple(p for p in self.pods if p.phase == "Succeeded")

    @property
    def quiet(self) -> bool:
        """Nothing of the run holds or may come to hold a node's resources."""
        return not any(p.live for p in self.observed.pods) and all(j.finished for j in self.observed.jobs)

    @functools.cached_property
    def counts(self) -> incidents.Counts:
        """Incidents and disruptions so far; they never fall, though pods that showed them are deleted."""
        known = incidents.Counts(self.subject.status.restarts, self.subject.status.disruptions)
        if self.job is None or self.ended:
            return known
        seen = incidents.count(self.job, self.pods, self.observed.seen)
        return incidents.Counts(max(known.restarts, seen.restarts), max(known.disruptions, seen.disruptions))

    @functools.cached_property
    def model(self) -> models.Model:
        """What a PathoEval evaluates."""
        return models.resolve(self.subject, self.observed)
