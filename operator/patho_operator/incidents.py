"""How many incidents an attempt has had. A gang fails together: several pods that fail at about the same time are one incident.

Three things end a pod without being the run's fault: a disruption, SIGTERM after saving (143), and the loss of index 0, which
hosts the rendezvous: when it goes the others end by themselves, and say so. Whether that is an incident, index 0's own end tells: the
others' is known at once, that of an index 0 on a dead node only minutes later. Where index 0 lives on, and a replaced pod says that it lost
it once more, the first loss was none: a pod meets index 0 before it can lose it. So of such losses all but the last are incidents.
"""

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Sequence

from patho_api import names
from patho_operator import observed
from patho_operator.observed import Job, Pod, Seen

TOGETHER = datetime.timedelta(seconds=60)  # torchrun's agents end within 30 s of losing the rendezvous; twice that


@dataclasses.dataclass(frozen=True)
class Counts:
    """Totals over all attempts."""

    restarts: int = 0
    disruptions: int = 0


def count(job: Job, pods: Sequence[Pod], seen: Seen | None) -> Counts:
    """Totals over all attempts up to this one, as far as pods and rank 0's report still show them."""
    mistaken = _mistaken(pods)
    groups = list(_groups(_causes(_before_success(pods), mistaken)))
    host = _current(pods, index=0)
    faults = [group for group in groups if not _excused(group, host, mistaken)]
    disruptions = len(groups) - len(faults)
    # Rank 0 counts rendezvous rounds since its pod started; each later loss of a pod is one of them.
    since = host.created if host else observed.EPOCH
    later = [group for group in groups if group[0].end >= since]
    # A pod that was evicted is gone from the list once it is replaced; its replacement carries the loss in its annotations.
    replaced = sum(p.earlier_failures for p in pods if p.index != 0 and p.phase != "Failed")
    in_place = seen.report.restarts - max(len(later), replaced) if seen else 0
    return Counts(job.before.restarts + len(faults) + max(0, in_place), job.before.disruptions + disruptions)


def faulty(pods: Iterable[Pod]) -> list[Pod]:
    """Pods that failed by themselves, oldest first; before them those that lost index 0, which seldom are the cause."""
    return sorted((p for p in pods if p.phase == "Failed" and not p.stopped), key=lambda p: (not p.host_lost, p.end))


def _causes(pods: Sequence[Pod], mistaken: Collection[str]) -> Sequence[Pod]:
    """Without those that lost index 0, where its own end is known."""
    hosts = _hosts(pods)
    told = {p.uid for p in pods if p.host_lost and (host := _met(p, hosts)) and host.phase == "Failed"}
    return [p for p in pods if p.uid not in told or p.uid in mistaken]


def _mistaken(pods: Sequence[Pod]) -> set[str]:
    """Uids of pods that say they lost index 0, although it was there for their successor, which says the same."""
    hosts, later, found = _hosts(pods), set[tuple[int, str]](), set[str]()
    for pod in sorted((p for p in pods if p.host_lost), key=lambda p: p.created, reverse=True):
        if (host := _met(pod, hosts)) and _was_there(host, pod):
            if (pod.index, host.uid) in later:
                found.add(pod.uid)
            later.add((pod.index, host.uid))
    return found


def _hosts(pods: Iterable[Pod]) -> list[Pod]:
    return sorted((p for p in pods if p.index == 0), key=lambda p: p.created)


def _met(pod: Pod, hosts: Iterable[Pod]) -> Pod | None:
    """The index 0 that a pod met: the first that had not failed when it was made. No pod outlives the one it met."""
    return next((host for host in hosts if host.phase != "Failed" or host.end >= pod.created), None)


def _was_there(host: Pod, pod: Pod) -> bool:
    """Whether it can be this index 0 that a pod lost. Evicted ones are gone from the list: a pod that is older than its index 0, and
    ends before that one was made or within a minute after, has lost one of those."""
    return host.created <= pod.created or pod.end - host.created > TOGETHER


def _before_success(pods: Sequence[Pod]) -> Sequence[Pod]:
    """Pods that did not end because index 0 was done: then the Job controller ends the others."""
    done = min((p.end for p in pods if p.index == 0 and p.phase == "Succeeded"), default=None)
    return [p for p in pods if done is None or p.end < done]


def _groups(pods: Iterable[Pod]) -> Iterable[list[Pod]]:
    """Failed pods that belong together: within a minute of the first, and each index at most once."""
    group: list[Pod] = []
    for pod in sorted((p for p in pods if p.phase == "Failed"), key=lambda p: p.end):
        if pod.exit_code in names.PERMANENT_EXITS:
            return  # what ends after it ends because of it, and nothing restarts
        late = group and pod.end - group[0].end > TOGETHER
        if group and (late or pod.index in {p.index for p in group}):
            yield group
            group = []
        group.append(pod)
    if group:
        yield group


def _excused(group: Sequence[Pod], host: Pod | None, mistaken: Collection[str]) -> bool:
    """Whether a disruption began it, or index 0 was taken away: the others say so, or it left no trace (deleted by hand)."""
    if any(pod.stopped for pod in group) or all(pod.host_lost and pod.uid not in mistaken for pod in group):
        return True
    without_host = all(pod.index != 0 for pod in group)
    replaced = host is not None and host.created > group[0].end and not host.earlier_failures
    return without_host and replaced


def _current(pods: Iterable[Pod], index: int) -> Pod | None:
    """The newest pod of an index that has not failed."""
    return max((p for p in pods if p.index == index and p.phase != "Failed"), key=lambda p: p.created, default=None)
