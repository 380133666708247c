"""What a run says about itself: rates and remaining time (pure), and the report on disk that the entrypoint serves as `/progress`."""

import collections
import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import Any

from patho_api import report, status
from patho_trainer import workspace

WINDOW_STEPS = 50  # rates and the remaining time are means over the latest steps
WRITE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a run is."""

    images_per_second: float
    data_wait_percent: float
    eta_seconds: int


class Pacer:
    """Measures pace over the last steps. All times are given, none is taken."""

    def __init__(self, batch_size: int, total_steps: int) -> None:
        self._batch_size = batch_size
        self._total_steps = total_steps
        self._steps: collections.deque[tuple[float, float]] = collections.deque(maxlen=WINDOW_STEPS)

    def add(self, step_seconds: float, wait_seconds: float) -> None:
        """Note a step and the part of it that training waited for data (mean over the processes)."""
        self._steps.append((step_seconds, wait_seconds))

    def pace(self, steps_done: int) -> Pace:
        """Pace after `steps_done` steps; at least one step must have been added."""
        seconds = sum(s for s, _ in self._steps)
        waited = sum(w for _, w in self._steps)
        per_step = seconds / len(self._steps)
        return Pace(
            images_per_second=self._batch_size / per_step,
            data_wait_percent=min(100.0, 100.0 * waited / seconds),
            eta_seconds=round(per_step * (self._total_steps - steps_done)),
        )


class Reporter:
    """Writes the report of the run. In processes that do not report, it does nothing.

    `tell` keeps what was said before: a report always holds all that is known. Writes at most twice a second, and at once when the
    stage changes.
    """

    def __init__(self, space: workspace.Workspace, run_id: str, *, enabled: bool, clock: Callable[[], float] = time.time) -> None:
        self._file = space.progress
        self._enabled = enabled
        self._clock = clock
        self._known: dict[str, Any] = {"run_id": run_id, "stage": "Loading"}
        self._written = 0.0

    def tell(self, **facts: Any) -> None:
        """Update fields of `report.ProgressReport`."""
        new_stage = facts.get("stage", self._known["stage"]) != self._known["stage"]
        self._known |= facts
        now = self._clock()
        if self._enabled and (new_stage or now - self._written >= WRITE_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write now what is known."""
        if not self._enabled:
            return
        self._written = self._clock()
        workspace.replace(self._file, self._report().model_dump_json(by_alias=True, exclude_none=True).encode())

    def _report(self) -> report.ProgressReport:
        return report.ProgressReport(**self._known, time=timestamp(self._clock()))


def read(space: workspace.Workspace) -> report.ProgressReport | None:
    """The last report of this pod, if it has one."""
    return report.ProgressReport.model_validate_json(space.progress.read_bytes()) if space.progress.exists() else None


def timestamp(unix_seconds: float) -> status.Time:
    """RFC 3339 in UTC, to the second."""
    return datetime.datetime.fromtimestamp(unix_seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
