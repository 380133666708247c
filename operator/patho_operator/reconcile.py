"""What to do about one resource: (subject, observed, now) -> Plan. Pure, level-triggered: it looks at what is, never at what happened."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from patho_api import names
from patho_operator import attempts, backoff, conditions, evaluations, manifests, starts, status, times, trouble
from patho_operator.observed import Before, Observed, Pod, Time
from patho_operator.plan import Burial, Delete, Event, Plan
from patho_operator.situation import Situation
from patho_operator.steps import Step
from patho_operator.subject import Status, Subject

SETTLING_SECONDS = 5.0  # between looks at something that is on its way
REFUSED_SECONDS = 30.0  # until a child that was refused is tried again
WORDS_SECONDS = 5.0  # between writes that change words alone: a large gang has others each time one of its pods comes or goes
WATCHING_SECONDS = 60.0  # between looks at a healthy run: time-outs are found by the clock, not by an event
Peers = Sequence[Mapping[str, Any]] | None


def reconcile(
    subject: Subject,
    observed: Observed,
    now: Time,
    *,
    image: str,
    metrics_from: Peers = None,
    starting_patience_seconds: float = starts.FIRST_STATUS_SECONDS,
    running_patience_seconds: float = 0.0,
    silence_seconds: float = WORDS_SECONDS,
) -> Plan:
    """The plan for one resource. `image` is the trainer of the operator's own release; `metrics_from` as in settings.Settings. The first
    status of a run waits for so long while it starts without trouble, and while it runs; `silence_seconds` have passed since the last
    write of one."""
    s = Situation(subject, observed, now)
    if subject.deleting:
        return Plan(burials=_burials(s))
    if conditions.has_ended(subject.status):
        return _after_the_end(s)
    step = _unless_refused(decide(s), observed)
    scoring = evaluations.look(s, status.render(s, step))
    patience = {"Starting": starting_patience_seconds, "Running": running_patience_seconds}
    first_waits = _first_status_waits(s, scoring.status, patience)
    wait_seconds = first_waits or _words_wait(s, scoring.status, silence_seconds)
    patch = None if wait_seconds > 0 else status.difference(subject.raw_status, scoring.status)
    rests_seconds = min(wait_seconds, _requeue(s, step) or wait_seconds) if wait_seconds > 0 else 0.0
    return Plan(
        deletes=(*_deletes(s, step), *scoring.deletes),
        burials=_burials(s),
        creates=_creates(s, step, image, metrics_from),
        optional=scoring.creates,
        status=patch,
        terminal=step.kind in ("Succeed", "Fail"),
        ends_attempt=patch is not None and step.kind in ("Stop", "Rest", "Refuse"),
        events=(*_events(s, step), *scoring.events) if patch else (),
        requeue_seconds=min(rests_seconds, starts.LOOK_SECONDS) if rests_seconds > 0 else _requeue(s, step),
        withheld=scoring.status.phase if first_waits > 0 else "",
        rests_seconds=rests_seconds if first_waits > 0 else 0.0,
    )


def decide(s: Situation) -> Step:
    """The one thing to do next."""
    if s.subject.resource is None:
        return _decide_invalid(s)
    if s.job is not None and not s.ended:
        verdict = attempts.judge(s)
    elif s.attempt and not s.ended:
        verdict = attempts.Verdict("Replace", "JobDeleted", "the Job is gone: a new attempt takes its place")
    else:
        verdict = attempts.GOES_ON
    if verdict.outcome == "Done":
        return Step("Succeed") if s.quiet else Step("Hold", "Completing", "waiting for the last pods to end")
    return _decide_failure(s, verdict) or _decide_next(s, verdict)


def _unless_refused(step: Step, observed: Observed) -> Step:
    """The API server has just refused to make the next attempt: it was not made."""
    if observed.problem is None or step.kind != "Begin":
        return step
    return Step("Hold", observed.problem.reason, observed.problem.message, seconds=REFUSED_SECONDS)


def _decide_invalid(s: Situation) -> Step:
    """The specification cannot be read: what runs goes on, nothing new starts."""
    if s.job is not None and not s.ended and not s.job.finished:
        return Step("Keep")
    done = s.job is not None and s.job.complete
    if not s.quiet and s.job is None and not s.attempt:
        return Step("Hold", "Cleaning", trouble.lingering(s))  # of an earlier resource of that name
    if not s.quiet:
        return Step("Hold", "Completing" if done else "Failing", "waiting for the last pods to end")
    return Step("Succeed") if done else Step("Refuse", "InvalidSpec", " ".join(s.subject.refusals))


def _decide_failure(s: Situation, verdict: attempts.Verdict) -> Step | None:
    """Failed for good: clean up first, say so afterwards."""
    if verdict.outcome == "Fatal":
        # the Job controller ends the other pods by itself, and keeps the logs of those that ended
        waiting = Step("Hold", "Failing", f"waiting for the last pods to end after: {verdict.message}")
        return Step("Fail", verdict.reason, verdict.message) if s.quiet else waiting
    reason, message = _exhausted(s)
    if not reason:
        return None
    if s.ended and s.record and s.record.reason == reason:
        message = s.record.message  # as it was when the pods that showed it were still there
    return Step("Fail", reason, message) if s.quiet else Step("Stop", reason, message)


def _exhausted(s: Situation) -> tuple[str, str]:
    """A limit that the run has passed: (reason, message), empty if none."""
    if s.counts.restarts > s.policy.max_restarts:
        return "TooManyRestarts", attempts.too_many_restarts(s.counts.restarts, s.policy.max_restarts, attempts.last_failure(s))
    start, deadline = _began(s), s.policy.active_deadline_seconds
    if start and deadline is not None and times.seconds_between(start, s.now) >= deadline:
        return "DeadlineExceeded", f"not done {times.short(deadline)} after its start (runPolicy.activeDeadlineSeconds)"
    return "", ""


def _decide_next(s: Situation, verdict: attempts.Verdict) -> Step:
    """Neither done nor failed: stop, go on, wait, or begin the next attempt."""
    if s.policy.suspend:
        if s.quiet and (s.ended or not s.attempt):
            return Step("Rest", "Suspended", "suspended: set runPolicy.suspend to false to go on from the last checkpoint")
        return Step("Stop", "Suspended", "runPolicy.suspend is true: pods save and end")
    if verdict.outcome == "Replace":
        return Step("Stop", verdict.reason, verdict.message, counted=verdict.counted)
    if s.job is not None and not s.ended:
        return Step("Keep")
    if s.subject.refusals:
        return Step("Refuse", "Refused", " ".join(s.subject.refusals))
    return _decide_beginning(s)


def _decide_beginning(s: Situation) -> Step:
    """No attempt is under way: what stands between here and the next one."""
    if s.observed.jobs or not s.quiet:
        return Step("Stop", s.record.reason if s.record else "Cleaning", trouble.lingering(s))
    if s.model.waiting:
        return Step("Hold", "WaitingForCheckpoint", s.model.waiting, seconds=WATCHING_SECONDS)
    wait_seconds = backoff.seconds_left(s.subject.uid, s.subject.status.attempts, s.now)
    if wait_seconds > 0:
        return Step("Hold", "BackOff", "waiting before the next attempt, longer each time it makes no progress", seconds=wait_seconds)
    return Step("Begin", *_beginning(s))


def _beginning(s: Situation) -> tuple[str, str]:
    """Why the next attempt begins: (reason, message)."""
    if not s.attempt:
        return "Started", "first attempt"
    last = s.record
    if last is None or last.reason == "Suspended":
        return "Resumed", "resumes from the last checkpoint"
    return last.reason, last.message


def _first_status_waits(s: Situation, new: Status, patience_seconds: Mapping[str, float]) -> float:
    """Seconds that the first status of a run may still wait; 0 if something is known that a user should read now."""
    running = next((c.reason for c in new.conditions if c.type == "Running"), "")
    if s.subject.raw_status or new.phase != running or not _is_well(s, new):
        return 0.0
    return max(0.0, patience_seconds.get(new.phase, 0.0) - (times.seconds_between(s.job.created, s.now) if s.job else 0.0))


def _is_well(s: Situation, new: Status) -> bool:
    """Whether there is nothing that a user should read now."""
    found = {c.type: c.status for c in new.conditions}
    return not (new.restarts or new.disruptions or s.subject.refusals or found["Admitted"] != "True" or found.get("Collapsed") == "True")


def _words_wait(s: Situation, new: Status, silence_seconds: float) -> float:
    """Seconds that a status which says the same in other words may still wait."""
    old, left = s.subject.status, WORDS_SECONDS - silence_seconds
    return left if left > 0 and new != old and status.only_words(old, new) else 0.0


def _after_the_end(s: Situation) -> Plan:
    """Terminal stays terminal; a later specification is seen, the last checkpoints are scored, and the time to live is watched."""
    scoring = evaluations.look(s, s.subject.status.model_copy(update={"observed_generation": s.subject.generation}))
    patch = status.difference(s.subject.raw_status, scoring.status)
    plan = Plan(optional=scoring.creates, status=patch, deletes=scoring.deletes, events=scoring.events if patch else ())
    ttl, end = s.policy.ttl_seconds_after_finished, times.parse(s.subject.status.completion_time)
    if ttl is None or end is None:
        return plan
    left = ttl - times.seconds_between(end, s.now)
    if left > 0 or scoring.creates or scoring.unfinished:
        return dataclasses.replace(plan, requeue_seconds=max(left, SETTLING_SECONDS))
    key = s.subject.key
    return Plan(deletes=(Delete(key.kind, key.namespace, key.name, s.subject.uid, "Background"),), requeue_seconds=SETTLING_SECONDS)


def _deletes(s: Situation, step: Step) -> tuple[Delete, ...]:
    """Jobs that must go: all of them on a stop, and any that an earlier attempt left. On a stop also pods that nobody else would end."""
    namespace = s.subject.key.namespace
    doomed = [j for j in s.jobs if not j.deleting and (step.kind == "Stop" or (j.attempt < s.attempt and not j.finished))]
    stray = _stray(s) if step.kind == "Stop" else []
    return (
        *(Delete("Job", namespace, j.name, j.uid) for j in doomed),
        *(Delete("Pod", namespace, p.name, p.uid, "Background") for p in stray),
    )


def _stray(s: Situation) -> list[Pod]:
    """Live pods of this run whose Job is gone: somebody deleted it and let its pods go on (`--cascade=orphan`)."""
    made = {j.attempt for j in s.jobs}
    mine = [p for p in s.observed.pods if p.run_uid == s.subject.uid and p.live and p.deletion is None]
    return [p for p in mine if p.attempt not in made]


def _burials(s: Situation) -> tuple[Burial, ...]:
    """Pods whose kubelet should have ended them long ago. With a podFailurePolicy they are replaced only once they are Failed."""
    return tuple(Burial(s.subject.key.namespace, pod.name, pod.uid) for pod in s.observed.pods if trouble.overdue(pod, s.now))


def _creates(s: Situation, step: Step, image: str, metrics_from: Peers) -> tuple[Mapping[str, Any], ...]:
    if step.kind != "Begin":
        return ()
    rendered = manifests.with_model(s.resource, s.model.url, s.model.storage)
    old = s.subject.status
    checkpoint = status.latest_checkpoint(old)
    job = manifests.job(
        rendered,
        attempt=s.attempt + 1,
        image=image,
        before=Before(old.restarts, old.disruptions, old.accelerator_seconds),
        reason=step.reason,
        wanted_hash=s.subject.spec_hash,
        from_step=checkpoint.step if checkpoint else None,
        model_url=s.model.url if s.subject.key.kind == names.EVAL else "",
        best_by=evaluations.best_by(s),
    )
    policy = () if metrics_from is None else (manifests.network_policy(s.resource, metrics_from),)
    service = (manifests.service(s.resource),) if s.compute.nodes > 1 else ()
    return (*policy, *service, job)  # in this order: no pod is ever without them


def _events(s: Situation, step: Step) -> tuple[Event, ...]:
    """What a user reads under `kubectl describe`: one event for each step that changes the course. The first attempt changes none: its
    Job and the conditions tell of it."""
    if step.reason == "NameConflict":
        return (Event("NameConflict", step.message, warning=True),)
    if step.kind == "Begin" and s.attempt:
        began = Event("AttemptCreated", f"attempt {s.attempt + 1}: {step.message}")
        return (Event("Resumed", step.message), began) if step.reason == "Resumed" else (began,)
    if step.kind == "Stop" and not s.ended:
        return (Event(step.event, step.message, warning=step.reason != "Suspended"),)
    if step.kind in ("Succeed", "Fail", "Refuse"):
        return (Event(step.event, step.message or "done", warning=step.kind != "Succeed"),)
    return ()


def _requeue(s: Situation, step: Step) -> float | None:
    """When to look again if nothing happens."""
    if step.kind in ("Succeed", "Fail"):
        return s.policy.ttl_seconds_after_finished
    if step.kind in ("Rest", "Refuse"):
        return None
    if step.kind == "Keep":
        return min(WATCHING_SECONDS, *_limits(s)) if s.gathered else 2 * SETTLING_SECONDS
    return step.seconds or SETTLING_SECONDS


def _began(s: Situation) -> Time | None:
    """When the run began; its first Job tells before status does."""
    return times.parse(s.subject.status.start_time) or (s.job.created if s.job else None)


def _limits(s: Situation) -> list[float]:
    """Seconds until a time-out of the run policy could be reached."""
    limits = [max(1.0, s.policy.stall_timeout_seconds - (attempts.silent_seconds(s) or 0.0))]
    deadline = s.policy.active_deadline_seconds
    if deadline is not None:
        start = _began(s) or s.now
        limits.append(max(1.0, deadline - times.seconds_between(start, s.now)))
    return limits
