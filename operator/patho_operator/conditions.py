"""Conditions and phase: the state of a run by aspect, for programs, and in one word, for people. Pure.

Each aspect is a small function that returns (status, reason, message); the message is one sentence that says what to do.
"""

import dataclasses
import re
from collections.abc import Callable

from patho_api import names
from patho_api.status import Condition, PretrainStatus
from patho_operator import times, trouble
from patho_operator.observed import SIGHT_SECONDS
from patho_operator.situation import Situation
from patho_operator.steps import Step
from patho_operator.subject import Status

Aspect = tuple[str, str, str]
REFUSALS = ("Refused", "InvalidSpec")  # a better specification revives the run
CAMEL = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")
UNSEEN = f"and a stall would not be seen: check network policies for port {names.PORT_METRICS}"
NOT_FOR_EVALS = ("Collapsed",)


@dataclasses.dataclass(frozen=True)
class View:
    """What an aspect looks at: the facts, the next step, and the status that is about to be written."""

    facts: Situation
    step: Step
    new: Status


def has_ended(status: Status) -> bool:
    """Whether the run has ended for good."""
    found = {c.type: c for c in status.conditions if c.status == "True"}
    failed = found.get("Failed")
    return "Succeeded" in found or (failed is not None and failed.reason not in REFUSALS)


def render(s: Situation, step: Step, new: Status) -> list[Condition]:
    """All conditions of a kind. The transition time stays while the status stays."""
    kinds = [kind for kind in names.CONDITIONS if s.subject.key.kind == names.PRETRAIN or kind not in NOT_FOR_EVALS]
    old = {c.type: c for c in s.subject.status.conditions}
    rendered = []
    for kind in kinds:
        status, reason, message = ASPECTS[kind](View(s, step, new))
        before = old.get(kind)
        since = before.last_transition_time if before and before.status == status else times.write(s.now)
        fields = {"type": kind, "status": status, "reason": _camel(reason), "message": message[:4096]}
        rendered.append(Condition(**fields, observed_generation=s.subject.generation, last_transition_time=since))
    return rendered


def phase(s: Situation, step: Step) -> str:
    """The state in one word, for printer columns."""
    ends = {"Succeed": "Succeeded", "Fail": "Failed", "Refuse": "Failed", "Rest": "Suspended"}
    if step.kind in ends:
        return ends[step.kind]
    if step.kind == "Keep":
        return _phase_of_attempt(s)
    if step.reason in ("Completing", "Failing"):
        return s.subject.status.phase or "Starting"
    if step.reason == "Suspended":
        return "Suspended"
    if step.kind == "Begin":
        queued = bool(s.compute.queue_name)
        return "Queued" if queued else "Starting" if not s.attempt else "Restarting"
    return "Restarting" if s.attempt else "Pending"


def _phase_of_attempt(s: Situation) -> str:
    if s.current.suspended:
        return "Queued"
    if s.gathered:
        return "Running"
    ran_before = s.attempt > 1 or any(not p.live for p in s.pods) or any(p.earlier_failures for p in s.pods)
    return "Restarting" if ran_before else "Starting"


def _camel(reason: str) -> str:
    """A reason as the API wants it: webhooks and schedulers put whole sentences there."""
    return reason if CAMEL.fullmatch(reason) else "Denied"


def _admitted(v: View) -> Aspect:
    if v.facts.observed.problem:
        return "False", v.facts.observed.problem.reason, v.facts.observed.problem.message
    if v.step.reason == "WaitingForCheckpoint":
        return "False", v.step.reason, v.step.message
    if v.step.kind in ("Begin", "Keep") and v.facts.compute.queue_name and (v.facts.job is None or v.facts.job.suspended):
        return "False", "Queued", f"waiting in Kueue's LocalQueue {v.facts.compute.queue_name}" + _again(v.facts)
    if found := trouble.quota(v.facts):
        return "False", "QuotaExceeded", found
    if v.step.kind in ("Begin", "Keep"):
        return "True", "Admitted", f"attempt {v.new.attempt} has its Job"
    return _unchanged(v.facts, "Admitted", "NotYet", "no attempt has been made yet")


def _again(s: Situation) -> str:
    return f": attempt {s.attempt} is a new Workload and queues again" if s.attempt > 1 else ""


def _fully_supported(v: View) -> Aspect:
    if v.facts.subject.refusals:
        goes_on = f" Attempt {v.facts.attempt} goes on with the specification it started with." if v.step.kind == "Keep" else ""
        return "False", "InvalidSpec" if v.facts.subject.resource is None else "Refused", " ".join(v.facts.subject.refusals) + goes_on
    if v.facts.subject.notes:
        return "False", "FieldsWithoutEffect", " ".join(f"{note}." for note in v.facts.subject.notes)
    return "True", "Supported", "every field of the specification has its effect"


def _running(v: View) -> Aspect:
    if v.step.kind == "Keep":
        count = f"{v.facts.running} of {v.facts.nodes} pods run"
        if v.facts.gathered:
            return "True", "Running", count
        return trouble.not_running(v.facts, count)
    if v.step.kind == "Begin":
        # of a first attempt the same words as a moment later: one write less
        said = f"0 of {v.facts.compute.nodes} pods run" if v.new.attempt == 1 else f"attempt {v.new.attempt} starts: {v.step.message}"
        return "False", "Starting", said
    reasons = {"Succeed": "Completed", "Fail": "Failed"}
    return "False", v.step.reason or reasons.get(v.step.kind, v.step.kind), v.step.message or "the run has ended"


def _stalled(v: View) -> Aspect:
    if v.step.reason == "Stalled":
        return "True", "Stalled", v.step.message or "no new step"
    if v.step.kind == "Keep" and (seen := v.facts.observed.seen):
        if times.seconds_between(seen.heard, v.facts.now) <= SIGHT_SECONDS:
            limit = f"no new step for {v.facts.policy.stall_timeout_seconds} s would restart the gang"
            return (
                "False",
                "Progressing",
                limit if v.facts.subject.resource else "a stall would restart nothing: the specification is invalid",
            )
        return "Unknown", "LostSight", f"rank 0 has not answered since {times.write(seen.heard)}, {UNSEEN}"
    if v.step.kind == "Keep" and v.facts.gathered:
        return "Unknown", "NoReport", f"rank 0 has not answered yet, {UNSEEN}"
    return "Unknown", "NotRunning", "nothing runs"


def _checkpointed(v: View) -> Aspect:
    if not isinstance(v.new, PretrainStatus):
        url = v.facts.model.url
        return ("True", "ModelFound", f"evaluates {url}") if url else ("False", "WaitingForCheckpoint", v.facts.model.waiting)
    latest = v.new.checkpoint.latest if v.new.checkpoint else None
    if latest:
        return "True", "Saved", f"step {latest.step} at {latest.url}"
    return "False" if v.new.attempt else "Unknown", "NoCheckpointYet", "a restart would begin at step 0"


def _collapsed(v: View) -> Aspect:
    collapsed = v.facts.observed.seen.report.collapsed if v.facts.observed.seen else None
    if collapsed is None:
        return _unchanged(v.facts, "Collapsed", "NotMeasured", "features have not been measured yet (training.monitorEverySteps)")
    if collapsed:
        return "True", "FeaturesDegenerate", "features carry little information: look at RankMe and lower training.learningRate"
    return "False", "Healthy", "features are not degenerate"


def _suspended(v: View) -> Aspect:
    if v.step.kind == "Rest":
        return "True", "Suspended", v.step.message
    if v.step.reason == "Suspended":
        return "False", "Suspending", v.step.message
    return "False", "NotSuspended", "runPolicy.suspend is false"


def _succeeded(v: View) -> Aspect:
    if v.step.kind == "Succeed":
        return "True", "Completed", "done"
    if v.step.kind == "Fail":
        return "False", v.step.reason, v.step.message
    return "Unknown", "NotFinished", "the run has not ended"


def _failed(v: View) -> Aspect:
    if v.step.kind in ("Fail", "Refuse"):
        return "True", v.step.reason, v.step.message
    if v.step.kind == "Succeed":
        return "False", "Completed", "done"
    return "Unknown", "NotFinished", "the run has not ended"


def _unchanged(s: Situation, kind: str, reason: str, message: str) -> Aspect:
    """What the condition said before, or Unknown."""
    old = next((c for c in s.subject.status.conditions if c.type == kind), None)
    return (old.status, old.reason, old.message) if old else ("Unknown", reason, message)


ASPECTS: dict[str, Callable[[View], Aspect]] = {
    "Admitted": _admitted,
    "FullySupported": _fully_supported,
    "Running": _running,
    "Stalled": _stalled,
    "Checkpointed": _checkpointed,
    "Collapsed": _collapsed,
    "Suspended": _suspended,
    "Succeeded": _succeeded,
    "Failed": _failed,
}
