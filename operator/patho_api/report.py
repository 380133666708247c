"""What a pod tells the operator: its progress (`GET :9400/progress`) and its last words (termination message). Untrusted JSON."""

from typing import Annotated

from pydantic import Field

from patho_api.common import Spec
from patho_api.status import CheckpointRef, Count, SlidesStatus, TaskResult, Time

MAX_PROGRESS_BYTES = 64 * 1024
MAX_LAST_WORDS_BYTES = 4096  # what Kubernetes keeps of a termination message


class ProgressReport(Spec):
    """Progress of a run as rank 0 sees it. Rates are over all processes."""

    run_id: Annotated[str, Field(max_length=128)]
    """Identifier of the attempt (`<uid>-<attempt>`): a report of another run is ignored."""
    stage: Annotated[str, Field(max_length=32)]
    """Indexing, Loading, Training, Saving or Evaluating."""
    step: Count = 0
    """Steps done (slides indexed, images embedded, in those stages)."""
    total_steps: Count = 0
    """Of how many."""
    images_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Patches a second."""
    data_wait_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of the time that training waited for data."""
    eta_seconds: Count | None = None
    """Estimated time to the end."""
    loss: float | None = None
    """Loss of the last step."""
    checkpoint: CheckpointRef | None = None
    """Newest complete checkpoint."""
    slides: SlidesStatus | None = None
    """Slides in use."""
    restarts: Count = 0
    """Rendezvous rounds beyond the first in this attempt: workers that torchrun restarted in place."""
    collapsed: bool | None = None
    """Whether the features have degenerated; null before the first measurement."""
    time: Time
    """When this was written."""


class BestCheckpoint(Spec):
    """Content of `names.best_url`: the checkpoint that pruning spares, and why."""

    step: Count
    """Optimizer steps it holds."""
    task: Annotated[str, Field(max_length=64)]
    """Evaluation task that judged it."""
    metric: Annotated[str, Field(max_length=64)] = ""
    """What was measured there; higher is better."""
    score: float
    """Its mean score."""
    time: Time
    """When it was judged."""


class LastWords(Spec):
    """Why a pod ended."""

    reason: Annotated[str, Field(max_length=128)]
    """One CamelCase word: Completed, InvalidConfiguration, DataNotFound, Diverged, Stopped, Crashed."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """One sentence that says what to do."""
    step: Count | None = None
    """Last step done."""
    checkpoint: CheckpointRef | None = None
    """Newest complete checkpoint."""
    results: Annotated[list[TaskResult], Field(max_length=16)] = []
    """Scores (evaluation only)."""
    rank_me: float | None = None
    """RankMe of the features (evaluation only)."""
    od_corr: float | None = None
    """ODCorr of the features (evaluation only)."""
    report_url: Annotated[str, Field(max_length=1024)] = Field(default="", alias="reportURL")
    """Where results.json lies (evaluation only)."""
