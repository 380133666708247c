"""A plan is data: what to create, delete and write, what to say, and when to look again. `cluster` carries it out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

Propagation = Literal["Foreground", "Background"]


@dataclasses.dataclass(frozen=True)
class Delete:
    """Delete one object, only if it is still the one with this uid."""

    kind: str
    namespace: str
    name: str
    uid: str
    # Foreground: the object stays visible until everything it owns is gone
    propagation: Propagation = "Foreground"


@dataclasses.dataclass(frozen=True)
class Burial:
    """Write a pod off whose node does not answer: failed by a disruption, then removed without its kubelet."""

    namespace: str
    name: str
    uid: str


@dataclasses.dataclass(frozen=True)
class Event:
    """One Kubernetes event about the resource; `reason` is one of names.EVENT_REASONS."""

    reason: str
    message: str
    warning: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do about one resource. Order: creates, status, deletes, burials, events: what goes was first written down."""

    deletes: tuple[Delete, ...] = ()
    burials: tuple[Burial, ...] = ()
    creates: tuple[Mapping[str, Any], ...] = ()
    optional: tuple[Mapping[str, Any], ...] = ()  # created too; one that is refused is told in an event and stops nothing
    status: Mapping[str, Any] | None = None  # a merge patch of status; None: nothing has changed
    terminal: bool = False  # the patch says that the run has ended
    ends_attempt: bool = False  # the patch says that an attempt has ended, or that nothing of it is left
    events: tuple[Event, ...] = ()
    requeue_seconds: float | None = None
    withheld: str = ""  # phase of a first status that is not written yet: it may wait
    rests_seconds: float = 0.0  # with such a status: how long nothing needs to be done unless something else is seen

    @property
    def consequential(self) -> bool:
        """Whether it must rest on a live look rather than on an index that may be old."""
        return bool(self.deletes or self.burials or self.creates or self.optional or self.terminal or self.ends_attempt)

    @property
    def settled(self) -> bool:
        """Whether the same plan would follow from the status that it writes: the event of that write is no news."""
        return not self.consequential and not (self.status or {}).get("evaluations")

    def __str__(self) -> str:
        """One line for the log."""
        verbs = [f"create {m['kind']} {m['metadata']['name']}" for m in (*self.creates, *self.optional)]
        verbs += [f"delete {d.kind} {d.name}" for d in self.deletes]
        verbs += [f"bury Pod {b.name}" for b in self.burials]
        verbs += [f"write {', '.join(self.status)}"] if self.status else []
        return "; ".join(verbs) or "nothing to do"
