"""What the operator sees of the cluster: small values cut out of API objects. Pure; raw JSON in, frozen dataclasses out."""

import contextlib
import dataclasses
import datetime
import json
from typing import NamedTuple

import pydantic

from patho_api import names, report, status
from patho_operator import devices, raw, times

Json = raw.Json
Time = raw.Time
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=times.UTC)
# Set by the Job controller on each pod of a Job with backoffLimitPerIndex: failures of this index before this pod
FAILURE_COUNTS = ("batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count")
SIGHT_SECONDS = 180.0  # between two answers of rank 0; beyond this the operator has lost sight of it (5,000 runs are asked every 100 s)
LARGEST = 10**12  # no count and no sum of seconds is larger: somebody wrote it
MOST_REASON_CHARACTERS = 128  # of an attempt's reason in status
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"  # annotation and label


class Key(NamedTuple):
    """Names one resource."""

    kind: str
    namespace: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a run."""

    name: str
    uid: str
    attempt: int
    index: int
    phase: str
    created: Time
    version: int = dataclasses.field(default=0, compare=False)  # of the object, as the API server counts changes: nothing is decided by it
    run_uid: str = ""  # of the resource it was made for
    started: Time | None = None  # its trainer container
    finished: Time | None = None
    exit_code: int | None = None
    words: str = ""  # termination message, as it is
    ip: str = ""
    running: bool = False  # the trainer container runs and nobody has asked it to stop
    node: str = ""
    deletion: Time | None = None  # when it must be gone: its grace period is over
    disrupted: bool = False
    host_lost: bool = False  # it ended because index 0, which hosts the rendezvous, was gone
    scheduled: bool = False
    trouble: str = ""  # why it does not run, in the API's own words
    trouble_reason: str = ""
    earlier_failures: int = 0  # of the same index, by the Job controller's count

    @property
    def live(self) -> bool:
        """It holds, or may come to hold, a node's resources."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def stopped(self) -> bool:
        """Ended by a disruption, or by SIGTERM after saving: not the run's own fault."""
        return self.phase == "Failed" and (self.disrupted or self.exit_code == names.EXIT_STOPPED)

    @property
    def end(self) -> Time:
        """When it ended, as far as anything tells; a kubelet whose clock is behind ended none before the API server made it."""
        return max(self.finished or self.started or self.created, self.created)


@dataclasses.dataclass(frozen=True, slots=True)
class Before:
    """Totals of all attempts before this one; they travel with the Job, so that nothing is counted twice."""

    restarts: int = 0
    disruptions: int = 0
    accelerator_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One attempt of a run."""

    name: str
    uid: str
    attempt: int
    created: Time
    started: Time | None = None  # when it was admitted last
    version: int = dataclasses.field(default=0, compare=False)
    owner_uid: str = ""
    deleting: bool = False
    suspended: bool = False
    complete: bool = False
    failed: bool = False
    failure: str = ""  # the Job controller's reason
    failure_message: str = ""
    parallelism: int = 1
    spec_hash: str = ""
    image: str = ""
    accelerators: int = 0  # of each of its pods
    model_url: str = ""
    reason: str = ""
    from_step: int | None = None
    before: Before = Before()

    @property
    def finished(self) -> bool:
        return self.complete or self.failed


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What rank 0 of the current attempt reported last, and how long it has shown the same step.

    Time in which the operator could not see (it was down, paused, or cut off) is no time in which nothing moved.
    """

    report: report.ProgressReport
    heard: Time
    still_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """The API server refused a write; nothing more is tried in this round."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """A PathoEval of one step of a run."""

    name: str
    uid: str
    step: int
    finished: bool = False
    deleting: bool = False
    failure: str = ""  # why it has no scores
    results: tuple[status.TaskResult, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """Everything a decision about one resource looks at, apart from the resource itself."""

    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    seen: Seen | None = None
    pretrain: Json | None = None  # body of the PathoPretrain that a PathoEval refers to
    evaluations: tuple[Evaluation, ...] = ()  # PathoEvals of single steps of a PathoPretrain, whoever made them
    warnings: tuple[str, ...] = ()  # events about a Job or pod that does not come up
    problem: Problem | None = None
    begun: bool = False  # this operator made the first attempt's Job, whether or not that still exists

    def host(self) -> Pod | None:
        """The pod of index 0 that runs in the newest attempt: rank 0 speaks from there."""
        return max((p for p in self.pods if p.index == 0 and p.running), key=lambda p: (p.created, p.attempt), default=None)


def run_key(metadata: Json) -> Key:
    """The resource that a Job or pod belongs to, from its metadata. Anybody may write a label: its kind may be none of ours."""
    labels = metadata.get("labels") or {}
    return Key(labels.get(names.LABEL_KIND, ""), metadata["namespace"], labels.get(names.LABEL_RUN, ""))


def job(body: Json) -> Job:
    """A Job from its JSON."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    failed = raw.condition(body, "Failed")
    step = annotations.get(names.ANNOTATION_FROM_STEP, "")
    return Job(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=raw.number(metadata.get("resourceVersion")),
        attempt=_small(metadata["name"].rpartition("-")[2]),  # a label can be edited, a name cannot
        created=times.parse(metadata.get("creationTimestamp")) or EPOCH,
        started=times.parse((body.get("status") or {}).get("startTime")),
        owner_uid=next((owner["uid"] for owner in metadata.get("ownerReferences") or [] if owner.get("controller")), ""),
        deleting="deletionTimestamp" in metadata,
        suspended=bool(spec.get("suspend")),
        complete=raw.condition(body, "Complete") is not None,
        failed=failed is not None,
        failure=(failed or {}).get("reason", ""),
        failure_message=(failed or {}).get("message", ""),
        parallelism=spec.get("parallelism", 1),
        spec_hash=annotations.get(names.ANNOTATION_SPEC_HASH, ""),
        image=annotations.get(names.ANNOTATION_IMAGE, ""),
        accelerators=devices.per_pod(spec),
        model_url=annotations.get(names.ANNOTATION_MODEL_URL, ""),
        reason=annotations.get(names.ANNOTATION_REASON, "")[:MOST_REASON_CHARACTERS],
        from_step=_small(step) if step.isdecimal() else None,
        before=_before(annotations.get(names.ANNOTATION_BEFORE, "")),
    )


def pod(body: Json) -> Pod:
    """A pod from its JSON."""
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    state = raw.trainer_state(status)
    running, ended = state.get("running") or {}, state.get("terminated") or {}
    trouble_reason, trouble = raw.trouble(body, state)
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=raw.number(metadata.get("resourceVersion")),
        attempt=_small((metadata.get("labels") or {}).get(names.LABEL_ATTEMPT)),
        index=_small(annotations.get(COMPLETION_INDEX)),
        phase=status.get("phase", "Pending"),
        created=times.parse(metadata.get("creationTimestamp")) or EPOCH,
        run_uid=(metadata.get("labels") or {}).get(names.LABEL_UID, ""),
        started=times.parse(running.get("startedAt") or ended.get("startedAt")),
        finished=times.parse(ended.get("finishedAt")) or raw.not_ready_since(body),
        exit_code=ended.get("exitCode"),
        words=ended.get("message") or raw.ended_without_words(ended, status),
        ip=status.get("podIP", ""),
        running=status.get("phase") == "Running" and "running" in state and "deletionTimestamp" not in metadata,
        node=(body.get("spec") or {}).get("nodeName", ""),
        deletion=times.parse(metadata.get("deletionTimestamp")),
        disrupted=raw.condition(body, "DisruptionTarget") is not None,
        host_lost=_lost_its_host(ended),
        scheduled=raw.condition(body, "PodScheduled") is not None,
        trouble=trouble,
        trouble_reason=trouble_reason,
        earlier_failures=sum(_small(annotations.get(name)) for name in FAILURE_COUNTS),
    )


def evaluation(body: Json) -> Evaluation | None:
    """A PathoEval of one step of a run, from its JSON; None for one of something else."""
    reference = ((body.get("spec") or {}).get("model") or {}).get("pretrain") or {}
    step = str(reference.get("checkpoint", ""))
    if not step.isdigit():
        return None
    failed = raw.condition(body, "Failed")
    metadata = body["metadata"]
    return Evaluation(
        name=metadata["name"],
        uid=metadata["uid"],
        step=int(step),
        finished=failed is not None or raw.condition(body, "Succeeded") is not None,
        deleting="deletionTimestamp" in metadata,
        failure=failed.get("message", "") if failed else "",
        results=_results(body),
    )


def _results(body: Json) -> tuple[status.TaskResult, ...]:
    """Scores; those that this release cannot read are left out."""
    found = []
    for entry in (body.get("status") or {}).get("results") or []:
        with contextlib.suppress(pydantic.ValidationError):
            found.append(status.TaskResult.model_validate(entry))
    return tuple(found)


def last_words(text: str) -> report.LastWords | None:
    """The trainer's own last words out of a termination message; None if it is something else, such as a piece of the log."""
    try:
        return report.LastWords.model_validate_json(text)
    except ValueError:
        return None


def _lost_its_host(ended: Json) -> bool:
    words = last_words(ended["message"]) if ended.get("exitCode") and ended.get("message") else None
    return words is not None and words.reason == names.REASON_HOST_LOST


def _before(text: str) -> Before:
    """Totals out of a Job's annotation; zeros if somebody has spoilt it (status still knows them, and totals never fall)."""
    try:
        found = json.loads(text)
        before = Before(int(found["restarts"]), int(found["disruptions"]), float(found["acceleratorSeconds"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return Before()
    return before if all(0 <= total < LARGEST for total in dataclasses.astuple(before)) else Before()


def _small(text: str | None) -> int:
    """A count out of a label or annotation; 0 where it is none, or larger than status may hold."""
    return found if (found := raw.number(text)) < LARGEST else 0
