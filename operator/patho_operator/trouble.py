"""Why pods do not run, in the API's own words. Pure."""

from patho_operator import attempts, incidents, times
from patho_operator.observed import Observed, Pod, Time
from patho_operator.situation import Situation
from patho_operator.subject import Subject

Aspect = tuple[str, str, str]
OVERDUE_SECONDS = 60.0  # after a pod's grace period: a busy kubelet and clocks that differ get this long
PATIENCE_SECONDS = 20.0  # a pod usually runs by then; if not, events say why


def quota(s: Situation) -> str:
    """The words of a quota that keeps pods from being made; empty if none."""
    return next((w for w in s.observed.warnings if "exceeded quota" in w), "")


def not_running(s: Situation, count: str) -> Aspect:
    """The condition Running=False while an attempt is not whole: (status, reason, message)."""
    waiting = [p for p in s.pods if p.live and p.trouble]
    if waiting:
        first = min(waiting, key=lambda p: p.created)
        placed = sum(p.live and p.scheduled for p in s.pods)
        since = times.write(first.created)  # and not for how long: a status that counts seconds is written again and again
        return "False", first.trouble_reason, f"{placed} of {s.nodes} nodes placed since {since}: {first.trouble}"
    if s.observed.warnings:
        return "False", "NotStarting", f"{count}: {s.observed.warnings[0]}"
    failed = incidents.faulty(s.pods)
    if failed:
        return "False", "Restarting", f"{count}; the last failure: {attempts.describe(failed[-1])}"
    if s.current.suspended:
        return "False", "Queued", "admission is awaited"
    return "False", "Starting", count


def lingering(s: Situation) -> str:
    """What a new attempt waits for, in a sentence."""
    pods = sorted((p for p in s.observed.pods if p.live), key=lambda p: p.deletion or s.now)
    if not pods:
        return "waiting for the Job of the last attempt to go"
    first = pods[0]
    sentence = f"waiting for pod {first.name} on node {first.node or '(none)'} to end"
    return f"{sentence}: the node does not answer, and the pod is removed by force" if overdue(first, s.now) else sentence


def overdue(pod: Pod, now: Time) -> bool:
    """Whether a pod still claims to live although its kubelet was to kill it a minute ago: the node is dead, or as good as."""
    return pod.live and pod.deletion is not None and times.seconds_between(pod.deletion, now) > OVERDUE_SECONDS


def worth_asking(subject: Subject, observed: Observed, now: Time) -> tuple[str, ...]:
    """Uids of the Job and a pod whose events may say why an attempt does not come up; empty if all is well or already known."""
    s = Situation(subject, observed, now)
    if s.subject.resource is None or s.job is None or s.job.finished or s.job.suspended or s.gathered:
        return ()
    stuck = [p for p in s.pods if p.live and not p.running and times.seconds_between(p.created, now) >= PATIENCE_SECONDS]
    missing = len({p.index for p in s.pods}) < s.job.parallelism and times.seconds_between(s.job.created, now) >= PATIENCE_SECONDS
    if not (stuck or missing) or any(p.trouble for p in stuck):
        return ()
    return (s.job.uid, *(p.uid for p in stuck[:1]))
