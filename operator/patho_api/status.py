"""What the operator writes back: status and conditions of both kinds. Times are RFC 3339, UTC."""

import datetime
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from patho_api.common import Spec

MOST = 2**53  # beyond it readers of JSON lose digits, and the API server soon refuses what is no 64-bit integer
RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})", re.ASCII)


def _time(text: str) -> str:
    """Status with anything else would be refused as a whole."""
    if not RFC_3339.fullmatch(text):
        raise ValueError(f"{text!r} is no RFC 3339 time: write it as 2030-01-31T12:00:00Z")
    datetime.datetime.fromisoformat(text)
    return text


def _count(number: int) -> int:
    if number > MOST:
        raise ValueError("beyond any count: at most 2^53")
    return number


Time = Annotated[str, AfterValidator(_time), Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0), AfterValidator(_count)]


class Condition(Spec):
    """One aspect of the resource's state, in the form of Kubernetes' API conventions."""

    type: Annotated[str, Field(max_length=64)]
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """True, False, or Unknown."""
    reason: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$")]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, in one sentence that says what to do."""
    observed_generation: Count = 0
    """Generation of the spec that this was said of."""
    last_transition_time: Time
    """When status last changed."""


class Progress(Spec):
    """What rank 0 reported last."""

    stage: Annotated[str, Field(max_length=32)] = ""
    """Indexing, Loading, Training, Saving or Evaluating."""
    step: Count = 0
    """Optimizer steps done (or slides indexed, or images embedded, in those stages)."""
    total_steps: Count = 0
    """Of how many."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share done."""
    eta_seconds: Count | None = None
    """Estimated time to the end."""
    images_per_second: float | None = None
    """Patches a second over all processes."""
    data_wait_percent: float | None = None
    """Share of the time that training waited for data."""
    loss: float | None = None
    """Loss of the last step."""
    display: Annotated[str, Field(max_length=64)] = ""
    """Step and share, as shown by kubectl."""
    eta: Annotated[str, Field(max_length=32)] = ""
    """Estimated time to the end, as shown by kubectl."""
    rate: Annotated[str, Field(max_length=32)] = ""
    """Images a second, as shown by kubectl."""
    wait: Annotated[str, Field(max_length=32)] = ""
    """Waiting share, as shown by kubectl."""
    time: Time | None = None
    """When this was reported."""


class CheckpointRef(Spec):
    """One checkpoint."""

    step: Count
    """Optimizer steps it holds."""
    url: Annotated[str, Field(max_length=1024)]
    """Its folder."""
    time: Time | None = None
    """When it was complete."""
    task: Annotated[str, Field(max_length=64)] | None = None
    """Evaluation task that judged it."""
    score: float | None = None
    """Its score there."""


class CheckpointStatus(Spec):
    """Checkpoints worth knowing."""

    latest: CheckpointRef | None = None
    """The newest that is complete."""
    best: CheckpointRef | None = None
    """The best by an evaluation."""


class SlidesStatus(Spec):
    """Slides in use."""

    total: Count = 0
    """Slides in the index that the run draws from."""
    quarantined: Count = 0
    """Slides that could not be read."""


class Attempt(Spec):
    """One Job of the run."""

    number: Annotated[int, Field(ge=1)]
    """Counts from 1."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """Why it began or, once ended, why it ended."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """The same in a sentence."""
    from_step: Count | None = None
    """Checkpoint it started from."""
    to_step: Count | None = None
    """Last step it reported."""
    start: Time | None = None
    """When it was created."""
    end: Time | None = None
    """When it ended."""


class _Status(Spec):
    observed_generation: Count = 0
    """Generation of the spec that this status belongs to."""
    phase: Annotated[str, Field(max_length=32)] = ""
    """Summary for people, derived from the conditions: do not program against it."""
    attempt: Count = 0
    """Number of the current attempt."""
    restarts: Count = 0
    """Incidents so far, counted against maxRestarts."""
    disruptions: Count = 0
    """Drains, preemptions and stops so far: not counted against maxRestarts."""
    start_time: Time | None = None
    """When the first attempt was created."""
    completion_time: Time | None = None
    """When the run ended."""
    progress: Progress | None = None
    """What rank 0 reported last."""
    accelerator_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Accelerators times seconds of pods running, over all attempts."""
    attempts: Annotated[
        list[Attempt],
        Field(max_length=10, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]}),
    ] = []
    """The last ten attempts."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """State by aspect: program against these."""


class TaskResult(Spec):
    """Score of one task."""

    task: Annotated[str, Field(max_length=64)]
    """Label of the task."""
    metric: Annotated[str, Field(max_length=64)]
    """What was measured, such as balancedAccuracy."""
    mean: float
    """Mean over the runs."""
    std: float
    """Standard deviation over the runs."""
    runs: Count
    """Number of probes."""
    samples: Count
    """Number of test samples."""


class EvaluationStatus(Spec):
    """One of a run's evaluations."""

    name: Annotated[str, Field(max_length=16)]
    """Its name in spec.evaluations."""
    step: Count = 0
    """Newest checkpoint that was decided on: it has (or had) a PathoEval, or was skipped."""
    scored_step: Count | None = None
    """Newest checkpoint that has scores."""
    results: Annotated[
        list[TaskResult],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["task"]}),
    ] = []
    """Its scores."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why the newest PathoEval that ended has no scores; empty if it has."""


class PretrainStatus(_Status):
    """Status of a PathoPretrain."""

    checkpoint: CheckpointStatus | None = None
    """Checkpoints worth knowing."""
    slides: SlidesStatus | None = None
    """Slides in use."""
    evaluations: Annotated[
        list[EvaluationStatus],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = []
    """What has become of spec.evaluations."""


class EvalStatus(_Status):
    """Status of a PathoEval."""

    model_url: Annotated[str, Field(max_length=1024)] = ""
    """The checkpoint that was resolved, or the model's own url or name."""
    results: Annotated[
        list[TaskResult],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["task"]}),
    ] = []
    """Scores by task."""
    rank_me: float | None = None
    """RankMe of the features (effective rank), higher is better."""
    od_corr: float | None = None
    """Mean absolute off-diagonal correlation of the features, lower is better."""
    report_url: Annotated[str, Field(max_length=1024)] = Field(default="", alias="reportURL")
    """Where the report lies."""
    score_summary: Annotated[str, Field(max_length=256)] = ""
    """Scores as shown by kubectl."""
