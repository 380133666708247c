"""What has become of an attempt: it goes on, it is done, it has failed for good, or a new one must take its place. Pure."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Literal

from patho_api import names
from patho_operator import incidents, observed, times
from patho_operator.observed import Pod
from patho_operator.situation import Situation

MAX_INDEX_BACKOFF_SECONDS = 40  # an index waits 10 s x 2^failures; beyond this a new Job is quicker
MOST_INDEX_BACKOFF_SECONDS = 600  # the Job controller's longest
JOB_BACKOFF_SECONDS = 10  # the Job controller's first back-off
CLOCK_SECONDS = 60  # that a node's clock may be ahead, and what it says still means something
EXIT_IN_MESSAGE = re.compile(r"failed with exit code (\d+)")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`Goes on`, or how the attempt ends and why."""

    outcome: Literal["GoesOn", "Done", "Fatal", "Replace"]
    reason: str = ""
    message: str = ""
    counted: bool = False  # an incident of its own, beyond those that pods show


GOES_ON = Verdict("GoesOn")


def judge(s: Situation) -> Verdict:
    """The first thing that ends the newest attempt, in the order of certainty. Its Job exists."""
    suspended_by_queue = s.current.suspended and bool(s.compute.queue_name)
    # index 0 is done: the Job controller ends the other pods, and says a little later that the Job is complete
    ending = any(p.index == 0 and p.phase == "Succeeded" for p in s.pods)
    for look in LOOKS if suspended_by_queue or ending else (*LOOKS, *LOOKS_WHILE_RUNNING):
        if verdict := look(s):
            return verdict
    return GOES_ON


def _done(s: Situation) -> Verdict | None:
    return Verdict("Done", "Completed", "") if s.current.complete else None


def _permanent(s: Situation) -> Verdict | None:
    """Exit codes that the same specification would meet again: no restart."""
    for pod in s.pods:
        if pod.exit_code in names.PERMANENT_EXITS:
            return Verdict("Fatal", names.EXIT_REASONS[pod.exit_code], describe(pod))
    match = EXIT_IN_MESSAGE.search(s.current.failure_message)
    if match and int(match[1]) in names.PERMANENT_EXITS:
        return Verdict("Fatal", names.EXIT_REASONS[int(match[1])], s.current.failure_message)
    return None


def _job_failed(s: Situation) -> Verdict | None:
    if not s.current.failed:
        return None
    return Verdict("Replace", "JobFailed", f"the Job failed: {s.current.failure_message or s.current.failure}", counted=True)


def _changed(s: Situation) -> Verdict | None:
    if s.subject.refusals or s.current.spec_hash == s.subject.spec_hash:
        return None
    return Verdict("Replace", "SpecChanged", "the specification of the pods changed: a new attempt takes it up from the last checkpoint")


def _edited(s: Situation) -> Verdict | None:
    """Kueue owns these fields of a queued Job; nobody else may change them."""
    if s.compute.queue_name or (not s.current.suspended and s.current.parallelism == s.compute.nodes):
        return None
    return Verdict("Replace", "JobEdited", "somebody suspended or resized the Job: a new attempt puts it back")


def _index_backoff(s: Situation) -> Verdict | None:
    for index, failures in () if s.gathered else _down(s):
        delay_seconds = min(JOB_BACKOFF_SECONDS * 2 ** min(failures - 1, 9), MOST_INDEX_BACKOFF_SECONDS)  # anybody may edit the count
        if delay_seconds > MAX_INDEX_BACKOFF_SECONDS:
            message = f"index {index} failed {failures} times and would wait {delay_seconds} s: a new attempt is quicker"
            return Verdict("Replace", "IndexBackOff", message)
    return None


def _left_alone(s: Situation) -> Verdict | None:
    """Index 0 was lost after others were done: these are never run again, and it would wait for them for ever."""
    host = max((p for p in s.pods if p.index == 0), key=lambda p: p.created, default=None)
    first = min(s.done, key=lambda p: p.end, default=None)
    if s.gathered or host is None or first is None or s.current.parallelism - len(s.done) >= s.needed:
        return None
    if host.phase != "Failed" and host.created <= first.end:
        return None
    message = f"index {first.index} was done before index 0 was lost: a new attempt ends the run from the last checkpoint"
    return Verdict("Replace", "LeftAlone", message)


def _not_placed(s: Situation) -> Verdict | None:
    """A gang only partly placed gives its nodes back: two such gangs would wait for each other for ever."""
    waiting = [p for p in s.pods if p.live and not p.scheduled and p.trouble]
    placed = sum(p.live and p.scheduled for p in s.pods)
    never_made = s.current.parallelism - len({p.index for p in s.pods})  # a quota or a webhook refuses them
    if not placed or s.gathered or not (waiting or never_made > 0):
        return None
    oldest = min(waiting or s.pods, key=lambda p: p.created)
    waited = times.seconds_between(max(oldest.created, _incomplete_since(s)), s.now)
    if waited < s.policy.placement_timeout_seconds:
        return None
    why = oldest.trouble or "the other pods cannot be made (quota or admission)"
    message = f"{placed} of {s.compute.nodes} nodes placed for {times.short(waited)}: {why}"
    return Verdict("Replace", "PlacementTimeout", message)


def _not_reformed(s: Situation) -> Verdict | None:
    if s.gathered:
        return None
    for index, since in _lost(s):
        if times.seconds_between(max(since, _incomplete_since(s)), s.now) >= s.policy.reform_timeout_seconds:
            message = f"index {index} did not come back within {s.policy.reform_timeout_seconds} s: the whole gang restarts"
            return Verdict("Replace", "ReformTimeout", message)
    return None


def _incomplete_since(s: Situation) -> observed.Time:
    """The earliest time since which the gang can have been incomplete. Pods alone do not tell: evicted ones vanish, and an index that
    failed long ago may have run until a moment ago."""
    running = next((c for c in s.subject.status.conditions if c.type == "Running"), None)
    if running and running.status == "True":
        return s.now
    known = (times.parse(running.last_transition_time) if running else None, s.current.started)
    return max((time for time in known if time), default=observed.EPOCH)


def _stalled(s: Situation) -> Verdict | None:
    """No new step while all pods run."""
    silent = silent_seconds(s)
    if silent is None or silent < s.policy.stall_timeout_seconds or s.observed.seen is None:
        return None
    where = f"{s.observed.seen.report.stage} {s.observed.seen.report.step}"
    return Verdict("Replace", "Stalled", f"no new step for {times.short(silent)} at {where}: the whole gang restarts", counted=True)


def silent_seconds(s: Situation) -> float | None:
    """How long the whole gang has been seen without a new step; None while it cannot be known.

    Every stage counts its own steps, so that a long first index is progress; a gang that never gets to its first step stays at Loading 0.
    """
    seen = s.observed.seen
    if seen is None or not s.gathered:
        return None
    gathered = max((max(p.created, _past(p.started or p.created, s.now)) for p in s.pods if p.running), default=seen.heard)
    return min(seen.still_seconds, times.seconds_between(gathered, seen.heard))


def _deleted(s: Situation) -> Verdict | None:
    return Verdict("Replace", "JobDeleted", "somebody deleted the Job: a new attempt takes its place") if s.current.deleting else None


Look = Callable[[Situation], Verdict | None]
LOOKS: tuple[Look, ...] = (
    _done,
    _permanent,
    _job_failed,
    _changed,
    _deleted,
)
LOOKS_WHILE_RUNNING: tuple[Look, ...] = (_stalled, _edited, _left_alone, _index_backoff, _not_placed, _not_reformed)


def describe(pod: Pod) -> str:
    """Why a pod ended: its own last words, else what Kubernetes knows."""
    words = observed.last_words(pod.words)
    if words and words.message:
        return words.message
    code = "without an exit code" if pod.exit_code is None else f"with exit code {pod.exit_code}"
    tail = " ".join(pod.words.split())[-500:]
    return f"pod {pod.name} ended {code}" + (f": {tail}" if tail else "")


def last_failure(s: Situation) -> str:
    """The newest failure in a sentence; empty if none is known."""
    found = incidents.faulty(s.pods)
    if found:
        return describe(found[-1])
    return s.record.message if s.record and s.ended else ""


def too_many_restarts(restarts: int, limit: int, last: str) -> str:
    """The message of a run that has failed too often."""
    return f"{restarts} incidents, more than runPolicy.maxRestarts {limit}" + (f"; the last: {last}" if last else "")


@dataclasses.dataclass(frozen=True)
class _Index:
    """The pods of one index: the one that has not failed, if any, and those that have."""

    number: int
    alive: Pod | None
    failed: list[Pod]


def _indexes(s: Situation) -> Iterator[_Index]:
    """All that have or had a pod, in order; one pass, since a gang may have thousands."""
    found: dict[int, list[Pod]] = {}
    for pod in s.pods:
        found.setdefault(pod.index, []).append(pod)
    for number, mine in sorted(found.items()):
        alive = max((p for p in mine if p.phase != "Failed"), key=lambda p: p.created, default=None)
        yield _Index(number, alive, [p for p in mine if p.phase == "Failed"])


def _down(s: Situation) -> Iterator[tuple[int, int]]:
    """Indexes that wait for the Job controller's back-off: (index, failures so far)."""
    for index in _indexes(s):
        if index.alive is None:
            newest = max(index.failed, key=lambda p: p.created)
            yield index.number, max(newest.earlier_failures + 1, len(index.failed))


def _lost(s: Situation) -> Iterator[tuple[int, observed.Time]]:
    """Indexes that ran, do not run, and do not just wait for a node: (index, since when)."""
    for index in _indexes(s):
        alive = index.alive
        if alive and (alive.running or (not alive.scheduled and alive.trouble)):
            continue
        if alive and alive.deletion:  # on its way out, or on a node that does not answer
            yield index.number, alive.deletion
        elif index.failed:
            yield index.number, max(_past(p.end, s.now) for p in index.failed)
        elif alive and alive.earlier_failures:
            yield index.number, alive.created


def _past(stamp: observed.Time, now: observed.Time) -> observed.Time:
    """A time that a kubelet wrote, now if its clock is ahead a little. One that is far ahead tells nothing: long ago, or a time-out would
    begin when that clock says."""
    return min(stamp, now) if times.seconds_between(now, stamp) <= CLOCK_SECONDS else observed.EPOCH
